#!lua flags=allow-oom
-- Remove from an audit log what is written about a player, and leave the hash.
--
-- KEYS  audit, its copy while it is rewritten
-- ARGV  hash of the player
-- Returns the number of entries that were changed.
--
-- Removed are the name, and the reasons of operations that concern the player or were the
-- player's own, but not those of erasures. Nothing is written if there is nothing to remove. O(entries).
--
-- Commands  XRANGE

local audit, copy, hash = KEYS[1], KEYS[2], ARGV[1]

-- The text of an entry without these, or nil if it has none.
local function without(text)
  if not string.find(text, hash, 1, true) then return nil end
  local entry = cjson.decode(text)
  if entry.player ~= hash and entry.by ~= 'token ' .. hash then return nil end
  local reason = entry.action ~= 'player.erase' and entry.reason
  if not entry.player_name and not reason then return nil end
  entry.player_name = nil
  if reason then entry.reason = nil end
  return cjson.encode(entry)
end

local changed, PORTION, from = {}, 200, '-'
local count = 0
repeat
  local items = redis.call('XRANGE', audit, from, '+', 'COUNT', PORTION)
  for _, item in ipairs(items) do
    local text = without(item[2][2])
    if text then
      changed[item[1]] = text
      count = count + 1
    end
  end
  if #items > 0 then from = '(' .. items[#items][1] end
until #items < PORTION
if count > 0 then
  rewrite(audit, copy, function(id, fields)
    return changed[id] and { 'e', changed[id] } or fields
  end)
end
return count

-- Append a batch to one player's log, atomically, and announce it.
--
-- KEYS  the inbox, mutes, then once if there is a digest, then devices and lease if
--       there are nodes
-- ARGV  retention ms, clock, entries kept, epoch if the log is new, channel,
--       largest fragment to announce whole, digest of the request ("" without a key),
--       lifetime of the once record in ms, how many nodes follow, the nodes that are
--       alive, then of each entry tag, fragment, type, when it expires in ms (0: not),
--       collapse key ("": none) and whether it is for the device used last (0 or 1)
-- Gives replayed (0 or 1), epoch, time, offset of the first entry stored, tags, "-" for
-- those that were not, as the player has muted their type.
--
-- Everything is checked before the first write, because a script that fails half way
-- keeps what it wrote.

local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, digest, once_ms = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local nodes = tonumber(ARGV[9])
local once = 8

if digest ~= '' then
  local record = redis.call('GET', KEYS[once])
  if record then
    local seen, epoch, ms, offset, tags =
      string.match(record, '^(%S+) (%d+) (%d+) (%d+) (.*)$')
    if seen ~= digest then return redis.error_reply('CONFLICT') end
    local list = {}
    for tag in string.gmatch(tags, '[^,]+') do list[#list + 1] = tag end
    return { 1, epoch, ms, offset, list }
  end
end

local all, device = {}, nil
for i = 10 + nodes, #ARGV, 6 do
  local entry = entry_of(unpack(ARGV, i, i + 4))
  if ARGV[i + 5] == '1' and nodes > 0 then
    device = device or latest_device(KEYS[#KEYS - 1], KEYS[#KEYS], 10, 9 + nodes)
    entry.device = device
  end
  all[#all + 1] = entry
end

local inbox = inbox_at(1)
local state = read_state(inbox)
local batch = wanted(KEYS[7], all)
if state.head + #batch > OFFSET_MAX then
  return redis.error_reply('LOGFULL offsets of this log are used up')
end

local first = state.head + 1
if #batch > 0 then append(inbox, state, batch, entries_max, new_epoch) end
local tags = {}
for i, entry in ipairs(all) do tags[i] = entry.muted and '-' or entry.tag end
if digest ~= '' then
  redis.call('SET', KEYS[once], table.concat({ digest, int(state.epoch), int(state.ms),
    int(first), table.concat(tags, ',') }, ' '), 'PX', once_ms)
end
announce(channel, state, batch, inline_max)
return { 0, int(state.epoch), int(state.ms), int(first), tags }

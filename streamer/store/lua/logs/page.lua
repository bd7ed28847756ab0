-- Read a page, newest first, with its read marks.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, newest stream id ("id", "(id" to exclude it, or "+"), oldest
--       ("id", "(id" or "-"), maximum number of entries, version that the caller has ("" for
--       none), maximum size of the fragments (one entry is returned regardless), "1" if the
--       caller reads the items itself, one more than the maximum, by commands after this
--       script, "1" if it shows no read entries: if all are read, it gets none
-- Returns version, head (epoch, time, offset, tag), unread entries, time of each item's read
-- mark in ms (0 for none; empty if no item has one), items, and the item that follows, if
-- any, without its fragment. If the caller's version is current, returns only the version.
-- If the caller reads the items itself and none of them has ended, three words take the
-- place of the items, as text: stream id, offset and tag of the newest item, or 0 0 0.
--
-- Ended entries are passed over. After a long run of them the item that follows may be one
-- of them: it is only the position at which the next page begins.
--
-- Commands  XREVRANGE

local newest, oldest, count, current = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local bytes_max, reads_items, only_unread = tonumber(ARGV[7]), ARGV[8] == '1', ARGV[9] == '1'
local PORTION, PASSED_MAX = 20, 2000

local inbox, state, floor = open_inbox(1)
local version = table.concat({ int(state.epoch), int(state.head), state.tag, int(floor),
  int(state.marks), int(state.ended or 0) }, '.')
if current == version then return { version } end
local head = { int(state.epoch), int(state.at_us), int(state.head), state.tag }
local unread = count_unread(inbox, state, floor)
if only_unread and unread == 0 then return { version, head, 0, {}, {} } end

local _, _, read_at_each = read_marks(inbox, state)

-- The newest item of the page: its stream id, offset and tag as text, and the offset.
local function first_item()
  if state.head < floor then return '0 0 0', 0 end
  if newest == '+' then
    local id = int(state.at_us) .. '-' .. int(state.head)
    return id .. ' ' .. int(state.head) .. ' ' .. state.tag, state.head
  end
  local item = redis.call('XREVRANGE', inbox.log, newest, oldest, 'COUNT', 1)[1]
  if not item then return '0 0 0', 0 end
  local _, offset = split_id(item[1])
  return item[1] .. ' ' .. int(offset) .. ' ' .. item[2][2], offset
end

if reads_items then
  -- Offsets have no holes, so those of the page are known without reading it. Not passing
  -- the items through Lua saves most of the cost of a page.
  local first, at = first_item()
  if unread == state.head - floor + 1 then
    -- No entry is done, so none is read and none has ended.
    return { version, head, unread, {}, first }
  end
  local offsets = {}
  for offset = at, math.max(floor, at - count), -1 do offsets[#offsets + 1] = offset end
  if not next(ended_among(inbox, state, offsets)) then
    if #offsets > count then offsets[#offsets] = nil end
    return { version, head, unread, read_at_each(offsets), first }
  end
end

local items, shown, following, bytes, passed = {}, {}, nil, 0, 0

local function end_before(item)
  following = { item[1], { 't', item[2][2], 'n', '' } }
end

local function add(item, offset, has_ended)
  local size = #item[2][4]
  if has_ended then
    passed, bytes = passed + 1, bytes + size
    if #items > 0 and (passed >= PASSED_MAX or bytes > bytes_max) then end_before(item) end
  elseif #items == count or (#items > 0 and bytes + size > bytes_max) then
    end_before(item)
  else
    items[#items + 1] = item
    shown[#items] = offset
    bytes = bytes + size
  end
end

-- In portions, because a hundred entries may have a few kilobytes or fifty megabytes.
local from, more = newest, state.head >= floor
while more do
  local asked = math.min(PORTION, count + 1 - #items)
  local portion = redis.call('XREVRANGE', inbox.log, from, oldest, 'COUNT', asked)
  local offsets = {}
  for i, item in ipairs(portion) do
    local _, offset = split_id(item[1])
    offsets[i] = offset
  end
  local ended = ended_among(inbox, state, offsets)
  more = #portion == asked
  for i, item in ipairs(portion) do
    add(item, offsets[i], ended[offsets[i]])
    if following then
      more = false
      break
    end
  end
  if more then from = '(' .. portion[asked][1] end
end
return { version, head, unread, read_at_each(shown), items, following }

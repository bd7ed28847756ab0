-- Read a page, newest first, with its read marks.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, newest place to return (a stream id, "(id" without it, or
--       "+"), oldest place ("-", "id" or "(id"), entries to return at most, the version
--       the caller has ("" for none), bytes to return at most (one entry comes anyway),
--       "1" where the caller reads the newest items itself, one more than it asks for,
--       with a command behind this script
-- Gives version, head (epoch, time, offset, tag), unread, the ms of each item's read
-- mark, 0 where there is none, or nothing where none has one; then items, and the item
-- that follows without its fragment, if one does. All but the version is left out when
-- it is the one that the caller has. Instead of items comes the lowest offset that is
-- kept, as a text, where the caller reads them and none of them is over.
--
-- What is over is passed over. When that has gone on for long, and there is something to
-- return, what follows may be such a one: it is a place to go on at, and no more.

local newest, oldest, count, current = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local bytes_max, reads_items = tonumber(ARGV[7]), ARGV[8] == '1'
local PORTION, PASSED_MAX = 20, 2000

local inbox, state, floor = open_inbox(1)
local version = table.concat({ int(state.epoch), int(state.head), state.tag, int(floor),
  int(state.marks), int(state.ended or 0) }, '.')
if current == version then return { version } end
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }
local unread = count_unread(inbox, state, floor)

if reads_items and unread == state.head - floor + 1 then
  -- None is done: neither read nor over.
  return { version, head, unread, {}, int(floor) }
end

local _, _, read_at_each = read_marks(inbox, state)

if reads_items then
  -- Offsets have no holes, so which they will be is known before they are read. That
  -- saves taking what they say through Lua, which is most of what a page costs.
  local offsets = {}
  for offset = state.head, math.max(floor, state.head - count), -1 do
    offsets[#offsets + 1] = offset
  end
  if not next(ended_among(inbox, state, offsets)) then
    if #offsets > count then offsets[#offsets] = nil end
    return { version, head, unread, read_at_each(offsets), int(floor) }
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

-- In portions, because a hundred entries may be small or fifty megabytes.
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

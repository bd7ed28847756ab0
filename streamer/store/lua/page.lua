-- Read a page, newest first, with its read marks.
--
-- KEYS  state, log, done, reads
-- ARGV  retention ms, clock, newest place to return (a stream id, "(id" without it, or
--       "+"), oldest place ("-", "id" or "(id"), entries to return at most, the version
--       the caller has ("" for none), bytes to return at most (one entry comes anyway)
-- Gives version, head (epoch, time, offset, tag), unread, items, for each item the ms of
--       its read mark, 0 where there is none, and the item that follows without its
--       fragment, if one does. All from items on is left out when the caller's version
--       is still the one.

local newest, oldest, count, known = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local bytes_max = tonumber(ARGV[7])
local PORTION = 20

local inbox = inbox_at(1)
local state = read_state(inbox)
local floor = floor_offset(inbox, state)
local version = table.concat(
  { int(state.epoch), int(state.head), state.tag, int(floor), int(state.marks) }, '.')
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }
local count_unread = unread(inbox, state, floor)
if known == version then return { version, head, count_unread } end

local _, read_at = read_marks(inbox, state)

local items, marks, following, bytes = {}, {}, nil, 0

local function take(item)
  local size = #item[2][4]
  if #items == count or (#items > 0 and bytes + size > bytes_max) then
    following = { item[1], { 't', item[2][2], 'n', '' } }
    return false
  end
  local _, offset = place(item[1])
  items[#items + 1] = item
  marks[#items] = read_at(offset)
  bytes = bytes + size
  return true
end

-- In portions, because a hundred entries may be small or fifty megabytes.
local from, more = newest, state.head >= floor
while more do
  local asked = math.min(PORTION, count + 1 - #items)
  local portion = redis.call('XREVRANGE', inbox.log, from, oldest, 'COUNT', asked)
  more = #portion == asked
  for _, item in ipairs(portion) do
    more = take(item) and more
    if following then break end
    from = '(' .. item[1]
  end
end
return { version, head, count_unread, items, marks, following }

-- Read a page, newest first, with its read marks.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, newest place to return (a stream id, "(id" without it, or
--       "+"), oldest place ("-", "id" or "(id"), entries to return at most, the version
--       the caller has ("" for none), bytes to return at most (one entry comes anyway)
-- Gives version, head (epoch, time, offset, tag), unread, items, for each item the ms of
--       its read mark, 0 where there is none, and the item that follows without its
--       fragment, if one does. All from items on is left out when the caller's version
--       is still the one.
--
-- What is over is passed over. When that has gone on for long, and there is something to
-- return, what follows may be such a one: it is a place to go on at, and no more.

local newest, oldest, count, known = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local bytes_max = tonumber(ARGV[7])
local PORTION, PASSED_MAX = 20, 2000

local inbox, state, floor = open(1)
local version = table.concat({ int(state.epoch), int(state.head), state.tag, int(floor),
  int(state.marks), int(state.ended or 0) }, '.')
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }
local count_unread = unread(inbox, state, floor)
if known == version then return { version, head, count_unread } end

local _, read_at = read_marks(inbox, state)

local items, marks, following, bytes, passed = {}, {}, nil, 0, 0

local function ends_at(item)
  following = { item[1], { 't', item[2][2], 'n', '' } }
end

local function take(item, over)
  local _, offset = place(item[1])
  local size = #item[2][4]
  if over[offset] then
    passed, bytes = passed + 1, bytes + size
    if #items > 0 and (passed >= PASSED_MAX or bytes > bytes_max) then ends_at(item) end
  elseif #items == count or (#items > 0 and bytes + size > bytes_max) then
    ends_at(item)
  else
    items[#items + 1] = item
    marks[#items] = read_at(offset)
    bytes = bytes + size
  end
end

-- In portions, because a hundred entries may be small or fifty megabytes.
local from, more = newest, state.head >= floor
while more do
  local asked = math.min(PORTION, count + 1 - #items)
  local portion = redis.call('XREVRANGE', inbox.log, from, oldest, 'COUNT', asked)
  local over = those_over(inbox, state, portion)
  more = #portion == asked
  for _, item in ipairs(portion) do
    take(item, over)
    if following then
      more = false
      break
    end
    from = '(' .. item[1]
  end
end
return { version, head, count_unread, items, marks, following }

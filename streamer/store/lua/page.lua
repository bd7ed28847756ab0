-- Read a page, newest first, with its read marks.
--
-- KEYS  state, log, done, reads
-- ARGV  retention ms, clock, newest place to return (a stream id, "(id" without it, or
--       "+"), oldest place ("-", "id" or "(id"), entries to return at most, the version
--       the caller has ("" for none)
-- Gives version, head (epoch, time, offset, tag), unread, items, and for each item the
--       ms of its read mark, 0 where there is none. Items and marks are left out when
--       the caller's version is still the one.

local newest, oldest, count, known = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]

local inbox = inbox_at(1)
local state = read_state(inbox)
local floor = floor_offset(inbox, state)
local version = table.concat(
  { int(state.epoch), int(state.head), state.tag, int(floor), int(state.marks) }, '.')
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }
local count_unread = unread(inbox, state, floor)
if known == version then return { version, head, count_unread } end

local _, read_at = read_marks(inbox, state)

local items, marks = {}, {}
if count > 0 and state.head >= floor then
  items = redis.call('XREVRANGE', inbox.log, newest, oldest, 'COUNT', count)
  for i, item in ipairs(items) do
    local _, offset = place(item[1])
    marks[i] = read_at(offset)
  end
end
return { version, head, count_unread, items, marks }

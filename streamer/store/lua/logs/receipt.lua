-- The receipt of an entry.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, time, offset, tag
-- Returns nil if there is no such entry; otherwise whether a client has acknowledged it (0
-- or 1), the time of its read mark in ms (0: none), how it has ended ("": it has not), and
-- the time in ms at which it expires or has expired (0: never, or it ended before).
--
-- Commands  HGET ZSCORE

local inbox, state, floor = open_inbox(1)
local at_us, offset, tag = ARGV[3], ARGV[4], ARGV[5]
local number = tonumber(offset)

local item = number >= floor and item_at(inbox, at_us, offset, tag)
if not item or field(item, 'w') then return false end

local score = state.ended and tonumber(redis.call('ZSCORE', inbox.ends, offset) or 0) or 0
local whole = math.floor(math.abs(score))
local ended = ''
if score < 0 then
  ended = 'expired'
elseif whole == WITHDRAWN then
  ended = 'withdrawn'
elseif whole == REPLACED then
  ended = 'replaced'
end

local was_read = ended == '' or math.abs(score) > whole
local _, read_at = read_marks(inbox, state)
local acked = tonumber(redis.call('HGET', inbox.state, 'acked') or 0)
return { number <= acked and 1 or 0, was_read and int(read_at(number)) or '0', ended,
  whole > COMING and int(whole) or '0' }

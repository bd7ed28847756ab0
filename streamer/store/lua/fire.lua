-- Fire a schedule for one player: take it out of the timetable, give it its place in the
-- log and announce it, all in one step, so that there is nothing to crash between.
--
-- KEYS  state, log, done, reads, record, due
-- ARGV  retention ms, clock, entries kept, epoch if the log is new, channel, largest
--       fragment to announce whole, member, tag, lateness to be marked in ms, the member
--       that marks it, how long a sent one is kept in ms
-- Gives 1 when it fired; 0 when it was not due, or not there any more.

local record, due = KEYS[5], KEYS[6]
local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, member, tag = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local late_after, due_member, kept_ms = tonumber(ARGV[9]), ARGV[10], ARGV[11]

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms then return 0 end
due_ms = tonumber(due_ms)
if due_ms > NOW_MS then return 0 end
if schedule_state(record) ~= 'pending' then
  redis.call('ZREM', due, member)
  return 0
end

local inbox = inbox_at(1)
local state = read_state(inbox)
if state.head + 1 > OFFSET_MAX then return 0 end

local fragment = mark_late(redis.call('HGET', record, 'fragment'), due_ms, late_after,
  due_member)
local batch = { { tag, fragment } }
redis.call('ZREM', due, member)
local first = append(inbox, state, NOW_MS, batch, entries_max, new_epoch)
redis.call('HSET', record, 'delivered', 1, 'total', 1)
settle(record, 'sent', kept_ms)
announce(channel, state, first, batch, inline_max)
return 1

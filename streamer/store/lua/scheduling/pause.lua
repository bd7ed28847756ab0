#!lua flags=allow-oom
-- Pause a schedule that is pending, or that is being sent to an audience.
--
-- KEYS  record, due, apps with schedules due, sending, paused
-- ARGV  retention in ms (unused), clock, member, ms after which a paused schedule is
--       cancelled
-- Returns the state afterwards, "" if there is no such schedule, and 1 if this call has
-- changed it, otherwise 0.
--
-- Commands  HSET ZADD ZREM

local record, due, apps, sending, paused = unpack(KEYS, 1, 5)
local member, longest_ms = ARGV[3], tonumber(ARGV[4])

local state = schedule_state(record)
if state ~= 'pending' and state ~= 'sending' then return { state, 0 } end
require_zrem(sending)
redis.call('HSET', record, 'state', 'paused', 'paused', int(NOW_MS))
redis.call('ZADD', paused, int(NOW_MS), member)
-- Schedulers find it when it was paused for too long, as they find what is due.
add_due(due, apps, member, int(NOW_MS + longest_ms))
if state == 'sending' then redis.call('ZREM', sending, member) end
return { 'paused', 1 }

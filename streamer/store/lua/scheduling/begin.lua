#!lua
-- Begin to send a schedule to its audience. From now on it cannot be cancelled, and it will
-- be sent, even if the node that sends it crashes. A full store refuses the script, so that
-- the schedule can still be cancelled.
--
-- KEYS  record, due, apps with schedules due, sending
-- ARGV  retention in ms (unused), clock, member, channel of notices
-- Returns 1 if it has begun; 0 if it was not due or no longer pending.
--
-- Commands  HSET ZADD ZSCORE

local record, due, apps, sending, member = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[3]

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms or tonumber(due_ms) > NOW_MS then return 0 end
local before = schedule_state(record)
-- One that was paused for too long is due here, too; the scheduler cancels it.
if before == 'paused' then return 0 end
if before ~= 'pending' then
  remove_due(due, apps, member)
  return 0
end
require_zrem(due)
redis.call('HSET', record, 'state', 'sending', 'begun', int(NOW_MS))
redis.call('ZADD', sending, int(NOW_MS), member)
remove_due(due, apps, member)
publish(ARGV[4], 'sending')
return with_refusal(1)

-- Begin to send a schedule that has an audience. Here a cancellation is decided: from
-- here on it is sent, however often whoever sends it dies.
--
-- KEYS  record, due, apps with something due, sending
-- ARGV  retention ms (not used), clock, member
-- Gives 1 when it has begun; 0 when it was not due, or not there any more.

local record, due, apps, sending, member = KEYS[1], KEYS[2], KEYS[3], KEYS[4], ARGV[3]

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms or tonumber(due_ms) > NOW_MS then return 0 end
remove_due(due, apps, member)
if schedule_state(record) ~= 'pending' then return 0 end
redis.call('HSET', record, 'state', 'sending', 'begun', int(NOW_MS))
redis.call('ZADD', sending, int(NOW_MS), member)
return 1

-- Note that a bucket of a schedule is served; end the schedule with the last one.
--
-- KEYS  record, sending
-- ARGV  retention ms (not used), clock, member, bucket, recipients in it, buckets in
--       all, how long a sent one is kept in ms
-- Gives 1 when the schedule is sent, else 0. Saying it twice changes nothing.

local record, sending, member = KEYS[1], KEYS[2], ARGV[3]
local field, count, buckets, kept_ms = 'n' .. ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]

if schedule_state(record) ~= 'sending' then return 1 end
if redis.call('HSETNX', record, field, count) == 0 then return 0 end
redis.call('HINCRBY', record, 'delivered', count)
if redis.call('HINCRBY', record, 'buckets_done', 1) < buckets then return 0 end
redis.call('ZREM', sending, member)
settle(record, 'sent', kept_ms)
return 1

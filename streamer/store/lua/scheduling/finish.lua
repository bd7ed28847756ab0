#!lua flags=allow-oom
-- Record that a bucket of a schedule is served. The last one completes the schedule.
--
-- KEYS  record, sending
-- ARGV  retention in ms (unused), clock, member, bucket, recipients in it, number of
--       buckets, lifetime of a sent record in ms
-- Returns 1 if the schedule is sent, otherwise 0. Idempotent.
--
-- Commands  HINCRBY HSETNX ZREM

local record, sending, member = KEYS[1], KEYS[2], ARGV[3]
local field, count, buckets, kept_ms = 'n' .. ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]

if schedule_state(record) ~= 'sending' then return 1 end
if redis.call('HSETNX', record, field, count) == 0 then return 0 end
redis.call('HINCRBY', record, 'delivered', count)
if redis.call('HINCRBY', record, 'buckets_done', 1) < buckets then return 0 end
redis.call('ZREM', sending, member)
settle(record, 'sent', kept_ms)
return 1

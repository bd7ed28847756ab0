#!lua flags=allow-oom
-- Record that a bucket of a schedule is served. The last one completes the schedule, also
-- if it was paused while these recipients were served.
--
-- KEYS  record, sending, due, apps with schedules due, paused
-- ARGV  retention in ms (unused), clock, member, bucket, recipients in it, number of
--       buckets, lifetime of a sent record in ms
-- Returns 1 if the schedule is sent or cancelled, otherwise 0. Idempotent.
--
-- Commands  HINCRBY HSETNX ZREM

local record, sending, due, apps, paused = unpack(KEYS, 1, 5)
local member, field, count = ARGV[3], 'n' .. ARGV[4], ARGV[5]
local buckets, kept_ms = tonumber(ARGV[6]), ARGV[7]

local state = schedule_state(record)
local ended = state == 'cancelled'
if state ~= 'sending' and state ~= 'paused' and not ended then return 1 end
if redis.call('HSETNX', record, field, count) == 0 then return ended and 1 or 0 end
redis.call('HINCRBY', record, 'delivered', count)
local done = redis.call('HINCRBY', record, 'buckets_done', 1)
if ended then return 1 end
if done < buckets then return 0 end
if state == 'paused' then remove_due(due, apps, member) end
redis.call('ZREM', sending, member)
redis.call('ZREM', paused, member)
settle(record, 'sent', kept_ms)
return 1

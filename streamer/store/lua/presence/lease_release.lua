#!lua flags=allow-oom
-- Release a lease of a connection that has closed, and record when the player was seen.
--
-- KEYS  lease, seen
-- ARGV  "node:connection", lifetime of the second key in ms
-- Returns 1.
--
-- allow-oom: in a full store connections still close.
--
-- Commands  HDEL SET TIME

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], string.format('%.0f', now), 'PX', ARGV[2])
return 1

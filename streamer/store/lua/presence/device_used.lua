#!lua flags=allow-oom
-- Record that the device of a connection is in use now.
--
-- KEYS  devices
-- ARGV  "node:connection" as in the leases, device, lifetime of the key in ms
-- Returns 1.
--
-- Commands  HSET PEXPIRE TIME

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1

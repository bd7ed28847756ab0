#!lua flags=allow-oom
-- Say that a node is alive; learn who else is.
--
-- KEYS  nodes
-- ARGV  node, how long a heartbeat counts in ms, how long it is remembered in ms
-- Gives the nodes that are alive.
--
-- A full store takes it all the same, or its nodes would count as dead.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end

redis.call('ZADD', KEYS[1], int(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now - tonumber(ARGV[3])))
return redis.call('ZRANGEBYSCORE', KEYS[1], int(now - tonumber(ARGV[2])), '+inf')

#!lua flags=allow-oom
-- Record a node's heartbeat, and read which nodes are alive.
--
-- KEYS  nodes
-- ARGV  node, age in ms up to which a heartbeat counts, age in ms at which it is deleted
-- Returns the live nodes.
--
-- allow-oom: in a full store, nodes must not count as dead.
--
-- Commands  TIME ZADD ZRANGEBYSCORE ZREMRANGEBYSCORE

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end

redis.call('ZADD', KEYS[1], int(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now - tonumber(ARGV[3])))
return redis.call('ZRANGEBYSCORE', KEYS[1], int(now - tonumber(ARGV[2])), '+inf')

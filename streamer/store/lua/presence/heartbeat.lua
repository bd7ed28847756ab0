#!lua flags=allow-oom
-- Record a node's heartbeat and the level that it reads, and read which nodes are alive.
--
-- KEYS  nodes, levels of nodes
-- ARGV  node, age in ms up to which a heartbeat counts, age in ms at which it is deleted,
--       level
-- Returns the live nodes.
--
-- allow-oom: in a full store, nodes must not count as dead.
--
-- Commands  HDEL HKEYS HLEN HSET TIME ZADD ZCARD ZRANGEBYSCORE ZREMRANGEBYSCORE ZSCORE

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end

redis.call('ZADD', KEYS[1], int(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now - tonumber(ARGV[3])))
-- A damaged key must not make the node count as dead.
redis.pcall('HSET', KEYS[2], ARGV[1], ARGV[4])
local levels = redis.pcall('HLEN', KEYS[2])
if type(levels) == 'number' and levels > redis.call('ZCARD', KEYS[1]) then
  for _, node in ipairs(redis.call('HKEYS', KEYS[2])) do
    if not redis.call('ZSCORE', KEYS[1], node) then redis.call('HDEL', KEYS[2], node) end
  end
end
return redis.call('ZRANGEBYSCORE', KEYS[1], int(now - tonumber(ARGV[2])), '+inf')

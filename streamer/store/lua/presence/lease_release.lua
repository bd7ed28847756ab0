#!lua flags=allow-oom
-- Release a lease of a connection that has closed, and record when the player was seen.
--
-- A lease that is gone leaves no record: it was released before, or its player was erased
-- or its app removed, of whom nothing may be written any longer.
--
-- KEYS  lease, seen
-- ARGV  "node:connection", lifetime of the second key in ms
-- Returns 1.
--
-- allow-oom: in a full store connections still close.
--
-- Commands  HDEL SET TIME

if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('SET', KEYS[2], string.format('%.0f', now), 'PX', ARGV[2])
end
return 1

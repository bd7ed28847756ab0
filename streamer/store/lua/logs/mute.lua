#!lua flags=allow-oom
-- Mute a type for a player.
--
-- KEYS  mutes
-- ARGV  type, maximum number of types
-- Returns 1; 0 if it was muted before; -1 if the maximum is reached.
--
-- Commands  SADD SCARD SISMEMBER

if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return -1 end
return redis.call('SADD', KEYS[1], ARGV[1])

-- Mute a type for a player.
--
-- KEYS  mutes
-- ARGV  type, types at most
-- Gives 1; or 0 when it was muted before; or -1 when there are as many as there may be.

if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 0 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return -1 end
return redis.call('SADD', KEYS[1], ARGV[1])

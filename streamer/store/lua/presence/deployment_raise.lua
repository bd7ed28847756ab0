#!lua flags=allow-oom
-- Raise the level in the record of a deployment, if nobody has changed the record.
--
-- KEYS  deployment
-- ARGV  the record that was read, the new one
-- Returns 1, or 0 if the record is another one.
--
-- Commands  GET SET

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1

#!lua flags=allow-oom
-- Store a new backend key.
--
-- KEYS  keys
-- ARGV  digest, record
-- Returns 1.
--
-- Commands  HSET

return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])

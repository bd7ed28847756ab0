#!lua flags=allow-oom
-- Store a backend key's successor, and let the key expire.
--
-- KEYS  keys
-- ARGV  digest, the expected record, the record with an expiry, the successor's digest, the
--       successor's record
-- Returns 1; 0 if the stored record is another or none: a revoked key stays revoked.
--
-- Commands  HGET HSET

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5])
return 1

-- Give a backend key a successor and an end.
--
-- KEYS  keys
-- ARGV  digest, the record that its author has seen, the record with an end, the
--       successor's digest, the successor's record
-- Gives 1; or 0 when another record is there, or none: a key that was taken back in the
-- meantime stays so.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5])
return 1

#!lua flags=allow-oom
-- Record when backend keys were used. A later time stays, and a revoked key gets none.
--
-- KEYS  keys, uses
-- ARGV  for each key: digest, time
-- Returns 1.
--
-- Commands  HEXISTS HGET HSET

for i = 1, #ARGV, 2 do
  local digest, at_ms = ARGV[i], tonumber(ARGV[i + 1])
  if redis.call('HEXISTS', KEYS[1], digest) == 1
    and at_ms > tonumber(redis.call('HGET', KEYS[2], digest) or 0) then
    redis.call('HSET', KEYS[2], digest, ARGV[i + 1])
  end
end
return 1

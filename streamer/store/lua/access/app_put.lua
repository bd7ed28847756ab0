#!lua flags=allow-oom
-- Store an app's record, if the stored one is unchanged.
--
-- KEYS  apps, audiences
-- ARGV  app, the expected record ("" for none), the new record, how many old pairs of issuer
--       and audience follow, the old pairs, the new pairs
-- Returns 1; 0 if the stored record is another; -1 if a pair belongs to another app.
--
-- Commands  HDEL HGET HSET

local app, seen, record = ARGV[1], ARGV[2], ARGV[3]
local first = 5 + tonumber(ARGV[4])

if (redis.call('HGET', KEYS[1], app) or '') ~= seen then return 0 end
for i = first, #ARGV do
  local owner = redis.call('HGET', KEYS[2], ARGV[i])
  if owner and owner ~= app then return -1 end
end

redis.call('HSET', KEYS[1], app, record)
for i = 5, first - 1 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == app then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
for i = first, #ARGV do redis.call('HSET', KEYS[2], ARGV[i], app) end
return 1

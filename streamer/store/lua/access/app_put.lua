#!lua flags=allow-oom
-- Store an app's record, if the stored one is unchanged.
--
-- KEYS  apps, audiences
-- ARGV  app, the expected record ("" for none), the new record, the old pair of issuer and
--       audience ("" for none), the new pair
-- Returns 1; 0 if the stored record is another; -1 if the pair belongs to another app.
--
-- Commands  HDEL HGET HSET

local app, seen, record, old, new = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if (redis.call('HGET', KEYS[1], app) or '') ~= seen then return 0 end
local owner = redis.call('HGET', KEYS[2], new)
if owner and owner ~= app then return -1 end

redis.call('HSET', KEYS[1], app, record)
if old ~= '' and old ~= new and redis.call('HGET', KEYS[2], old) == app then
  redis.call('HDEL', KEYS[2], old)
end
redis.call('HSET', KEYS[2], new, app)
return 1

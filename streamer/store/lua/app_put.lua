-- Store an app's record, if it is still what its author has seen.
--
-- KEYS  apps, audiences
-- ARGV  app, the record it replaces ("" for none), the record, the audience the app had
--       ("" for none), the audience it gets
-- Gives 1; or 0 when another record is there; or -1 when the audience is another app's.

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

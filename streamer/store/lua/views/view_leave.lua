#!lua flags=allow-oom
-- Remove a player from an audience, with its marks there.
--
-- KEYS  views, state
-- ARGV  retention in ms, clock, name of the audience, channel
-- Returns 1 if the player has left, 0 if it had not joined.
--
-- Commands  HDEL HGET HKEYS HSET

local views, name = KEYS[1], ARGV[3]

local names = redis.call('HGET', views, 'names') or ''
if not list_has(names, name) then return 0 end
names = list_without(names, name)
redis.call('HSET', views, 'names', names)
local fields = {}
for _, field in ipairs(redis.call('HKEYS', views)) do
  if string.match(field, '^%S+ (%S+)') == name then fields[#fields + 1] = field end
end
for i = 1, #fields, 1000 do
  redis.call('HDEL', views, unpack(fields, i, math.min(i + 999, #fields)))
end
keep_alive(views, names)
announce_audiences(KEYS[2], ARGV[4])
return with_refusal(1)

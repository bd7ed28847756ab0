-- Join a player to an audience at a position. Idempotent.
--
-- KEYS  views, state
-- ARGV  retention in ms, clock, name of the audience, position, maximum number of topics,
--       channel of the player's streams ("" to announce nothing)
-- Returns 1 if the player has joined, 0 if it had before, -1 if the maximum is reached.
--
-- Commands  HGET HSET

local views, name, topics_max, channel = KEYS[1], ARGV[3], tonumber(ARGV[5]), ARGV[6]

local names = redis.call('HGET', views, 'names') or ''
if list_has(names, name) then return 0 end
local _, topics = string.gsub(' ' .. names, ' t', '')
if string.sub(name, 1, 1) == 't' and topics >= topics_max then return -1 end

names = names == '' and name or names .. ' ' .. name
redis.call('HSET', views, 'names', names, 'in ' .. name, ARGV[4])
keep_alive(views, names)
if channel ~= '' then announce_audiences(KEYS[2], channel) end
return with_refusal(1)

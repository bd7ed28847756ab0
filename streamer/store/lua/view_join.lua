-- Let a player join an audience, from a place on. Joining twice changes nothing.
--
-- KEYS  views, state
-- ARGV  retention ms, clock, name, place at joining, topics at most, channel to tell
--       the player's streams on ("" for none)
-- Gives 1 if the player joined, 0 if it was in, -1 if it has as many topics as it may.

local views, name, topics_max, channel = KEYS[1], ARGV[3], tonumber(ARGV[5]), ARGV[6]

local names = redis.call('HGET', views, 'names') or ''
if list_has(names, name) then return 0 end
local _, topics = string.gsub(' ' .. names, ' t', '')
if string.sub(name, 1, 1) == 't' and topics >= topics_max then return -1 end

names = names == '' and name or names .. ' ' .. name
redis.call('HSET', views, 'names', names, 'in ' .. name, ARGV[4])
keep_alive(views, names)
if channel ~= '' then announce_audiences(KEYS[2], channel) end
return 1

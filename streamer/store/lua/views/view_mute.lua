#!lua flags=allow-oom
-- Mute or unmute an audience that a player has joined.
--
-- KEYS  views, state
-- ARGV  retention in ms, clock, name of the audience, 1 to mute or 0, channel
-- Returns 1 if that is a change, 0 if not, -1 if the player has not joined.
--
-- Commands  HDEL HGET HSETNX

local views, field = KEYS[1], 'muted ' .. ARGV[3]

if not list_has(redis.call('HGET', views, 'names') or '', ARGV[3]) then return -1 end
local changed
if ARGV[4] == '1' then
  changed = redis.call('HSETNX', views, field, 1)
else
  changed = redis.call('HDEL', views, field)
end
if changed == 1 then announce_audiences(KEYS[2], ARGV[5]) end
return with_refusal(changed)

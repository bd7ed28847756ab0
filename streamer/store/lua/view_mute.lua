-- Show a player nothing of an audience it has joined, or show it again.
--
-- KEYS  views, state
-- ARGV  retention ms, clock, name, 1 to mute or 0, channel
-- Gives 1 if that changed something, 0 if not, -1 if the player has not joined.

local views, field = KEYS[1], 'muted ' .. ARGV[3]

if not list_has(redis.call('HGET', views, 'names') or '', ARGV[3]) then return -1 end
local changed
if ARGV[4] == '1' then
  changed = redis.call('HSETNX', views, field, 1)
else
  changed = redis.call('HDEL', views, field)
end
if changed == 1 then announce_audiences(KEYS[2], ARGV[5]) end
return changed

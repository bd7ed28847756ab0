-- Count a player's unread entries, with the player's views, at one moment.
--
-- KEYS  the log, views
-- ARGV  retention in ms, clock
-- Returns head (epoch, time, offset, tag), unread entries of the log, version of the marks,
-- when its next entry expires in ms (0: none), and for each joined audience what views.lua
-- returns.
--
-- Commands  HGET HMGET

local inbox, state, floor = open_inbox(1)
local views = KEYS[7]

local found = {}
for name in string.gmatch(redis.call('HGET', views, 'names') or '', '%S+') do
  local f = redis.call('HMGET', views, 'in ' .. name, 'muted ' .. name, 'base ' .. name,
    'done ' .. name, 'deleted ' .. name)
  found[#found + 1] = { name, f[1], f[2] and 1 or 0, tonumber(f[3] or 0), f[4] or '',
    f[5] or '' }
end
return { { int(state.epoch), int(state.at_us), int(state.head), state.tag },
  count_unread(inbox, state, floor), state.marks, int(state.ends_at or 0), found }

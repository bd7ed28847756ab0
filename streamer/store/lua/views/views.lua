-- Read a player's views.
--
-- KEYS  views, state, log
-- ARGV  retention in ms, clock
-- Returns since when the player is known, in microseconds, and for each joined audience its
-- name, the position at joining, 1 if muted, base, done, deleted.
--
-- Commands  HEXISTS HGET HMGET PTTL XRANGE

local views, state, log = KEYS[1], KEYS[2], KEYS[3]

local names = redis.call('HGET', views, 'names')
if not names then
  -- No views yet. The oldest entry, or the state of an empty log, shows since when the
  -- player is known.
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if first then return { split_id(first[1]), {} } end
  if redis.call('HEXISTS', state, 'epoch') == 1 then return { 0, {} } end
  return { NOW_US, {} }
end
if redis.call('PTTL', views) < RETENTION_MS then keep_alive(views, names) end

local found = {}
for name in string.gmatch(names, '%S+') do
  local f = redis.call('HMGET', views, 'in ' .. name, 'muted ' .. name, 'base ' .. name,
    'done ' .. name, 'deleted ' .. name)
  found[#found + 1] = { name, f[1], f[2] and 1 or 0, tonumber(f[3] or 0), f[4] or '',
    f[5] or '' }
end
return { NOW_US, found }

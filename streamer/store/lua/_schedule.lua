-- What the scripts of the timetable share, behind _inbox.lua. A schedule is one hash; its
-- due time is judged by the store's clock alone, inside the script, because nodes' clocks
-- differ.

local function schedule_state(record)
  return redis.call('HGET', record, 'state') or ''
end

-- What waits lies in a zset of each app, so that no app's backlog lies before another's;
-- and one of the bucket says when the first of each app is due.
local function update_first_due(due, apps, member)
  local app = string.match(member, '^[^:]+')
  local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', apps, first[2], app)
  else
    redis.call('ZREM', apps, app)
  end
end

local function add_due(due, apps, member, due_ms)
  redis.call('ZADD', due, due_ms, member)
  update_first_due(due, apps, member)
end

local function remove_due(due, apps, member)
  redis.call('ZREM', due, member)
  update_first_due(due, apps, member)
end

-- A schedule that has come to its end is kept for a while, to be asked for.
local function settle(record, state, kept_ms)
  redis.call('HSET', record, 'state', state, 'settled', int(NOW_MS))
  redis.call('PEXPIRE', record, kept_ms)
end

-- Put the time it was due in front of a fragment that goes out late.
local function mark_late(fragment, due, late_after, due_at_json)
  if NOW_MS - due <= late_after then return fragment end
  return due_at_json .. ',' .. fragment
end

-- Shared by the scripts of the timetable. Include after _inbox.lua. A schedule is one hash.
-- Scripts compare its due time with the store's clock, because the clocks of nodes differ.
--
-- Commands  HGET HSET PEXPIRE ZADD ZRANGE ZREM

local function schedule_state(record)
  return redis.call('HGET', record, 'state') or ''
end

-- Pending schedules are in one zset per app, so that no app waits behind the backlog of
-- another. A zset per bucket has the time at which the first schedule of each app is due.
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

-- Tell schedulers of a schedule that is the first of its bucket. Needs _announce.lua. If the
-- store refuses it, they find the schedule when they look.
local function notice_due(apps, channel, due_ms)
  local first = redis.call('ZRANGE', apps, 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) >= tonumber(due_ms) then
    publish(channel, 'due ' .. due_ms)
  end
end

-- Remove a schedule that is due or paused from the timetable.
--
-- Removes last. Otherwise a refused ZADD could not be undone, because that takes ZADD.
local function remove_due(due, apps, member)
  local app = string.match(member, '^[^:]+')
  -- The two that are due first: if this schedule is one of them, the other one follows.
  local two = redis.call('ZRANGE', due, 0, 1, 'WITHSCORES')
  local following = two[2]
  if two[1] == member then following = two[4] end
  if following then
    redis.call('ZADD', apps, following, app)
  else
    redis.call('ZREM', apps, app)
  end
  redis.call('ZREM', due, member)
end

-- Fails if ZREM is refused, and does nothing otherwise. For a script that first adds to a
-- zset and later removes: it has to fail before it adds, because undoing that takes ZREM.
local function require_zrem(zset)
  redis.call('ZREM', zset, '')
end

-- Record the final state of a schedule, and let its record expire.
local function settle(record, state, kept_ms)
  redis.call('HSET', record, 'state', state, 'settled', int(NOW_MS))
  redis.call('PEXPIRE', record, kept_ms)
end

-- Insert the due time into a fragment that is sent late.
local function mark_late(fragment, due, late_after, due_at_json)
  if NOW_MS - due <= late_after then return fragment end
  return due_at_json .. ',' .. fragment
end

-- What the scripts of the timetable share, behind _inbox.lua. A schedule is one hash; its
-- due time is judged by the store's clock alone, inside the script, because nodes' clocks
-- differ.

local function schedule_state(record)
  return redis.call('HGET', record, 'state') or ''
end

-- A schedule that has come to its end is kept for a while, to be asked for.
local function settle(record, state, kept_ms)
  redis.call('HSET', record, 'state', state, 'settled', int(NOW_MS))
  redis.call('PEXPIRE', record, kept_ms)
end

-- Put the time it was due in front of a fragment that goes out late.
local function mark_late(fragment, due, late_after, due_member)
  if NOW_MS - due <= late_after then return fragment end
  return due_member .. ',' .. fragment
end

-- Cancel a schedule, or move it to another time, if it has not begun.
--
-- KEYS  record, due, apps with something due, slots
-- ARGV  retention ms (not used), clock, member, id, new due ms ("" to cancel), how long
--       a cancelled one is kept in ms, then, where it ends later with that, its fragment
--       and when it expires in ms
-- Gives the state it is in afterwards, "" when there is none; and whether it was done.

local record, due, apps, slots = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, id, new_due, kept_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local state = schedule_state(record)
if state ~= 'pending' then return { state, 0 } end
if new_due ~= '' then
  redis.call('HSET', record, 'due', new_due)
  if ARGV[7] then redis.call('HSET', record, 'fragment', ARGV[7], 'expires', ARGV[8]) end
  add_due(due, apps, member, new_due)
  return { 'pending', 1 }
end
remove_due(due, apps, member)
redis.call('SREM', slots, id)
settle(record, 'cancelled', kept_ms)
return { 'cancelled', 1 }

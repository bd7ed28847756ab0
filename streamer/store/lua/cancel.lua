-- Cancel a schedule, or move it to another time, if it has not begun.
--
-- KEYS  record, due, slots
-- ARGV  retention ms (not used), clock, member, id, new due ms ("" to cancel), how long
--       a cancelled one is kept in ms
-- Gives the state it is in afterwards, "" when there is none; and whether it was done.

local record, due, slots = KEYS[1], KEYS[2], KEYS[3]
local member, id, new_due, kept_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local state = schedule_state(record)
if state ~= 'pending' then return { state, 0 } end
if new_due ~= '' then
  redis.call('HSET', record, 'due', new_due)
  redis.call('ZADD', due, new_due, member)
  return { 'pending', 1 }
end
redis.call('ZREM', due, member)
redis.call('SREM', slots, id)
settle(record, 'cancelled', kept_ms)
return { 'cancelled', 1 }

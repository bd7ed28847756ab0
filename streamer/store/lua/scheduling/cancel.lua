#!lua flags=allow-oom
-- Cancel a schedule, or move it to another time, if sending has not begun.
--
-- KEYS  record, due, apps with schedules due, campaign slots
-- ARGV  retention in ms (unused), clock, member, id, new due time in ms ("" to cancel),
--       lifetime of a cancelled record in ms, channel of notices; optionally, if the new
--       time changes them, the fragment and its expiry in ms
-- Returns the state afterwards, "" if there is no such schedule, and 1 if this call has
-- changed it, otherwise 0.
--
-- Commands  HSET SREM

local record, due, apps, slots = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, id, new_due, kept_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local state = schedule_state(record)
if state ~= 'pending' then return { state, 0 } end
if new_due ~= '' then
  redis.call('HSET', record, 'due', new_due)
  if ARGV[8] then redis.call('HSET', record, 'fragment', ARGV[8], 'expires', ARGV[9]) end
  add_due(due, apps, member, new_due)
  notice_due(apps, ARGV[7], new_due)
  return with_refusal({ 'pending', 1 })
end
remove_due(due, apps, member)
redis.call('SREM', slots, id)
settle(record, 'cancelled', kept_ms)
return { 'cancelled', 1 }

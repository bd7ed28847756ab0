#!lua flags=allow-oom
-- Cancel a schedule that is pending or paused, or move it to another time.
--
-- KEYS  record, due, apps with schedules due, campaign slots, paused
-- ARGV  retention in ms (unused), clock, member, id, new due time in ms ("" to cancel;
--       "overdue" to cancel it only if it was paused for too long), lifetime of a cancelled
--       record in ms, channel of notices; optionally, if the new time changes them, the
--       fragment and its expiry in ms
-- Returns the state afterwards, "" if there is no such schedule; 1 if this call has
-- changed it, otherwise 0; and 1 if sending it had begun, otherwise 0.
--
-- What had begun is moved no more, and keeps its campaign's slot.
--
-- Commands  HGET HSET SREM ZREM ZSCORE

local record, due, apps, slots, paused = unpack(KEYS, 1, 5)
local member, id, new_due, kept_ms = ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local state = schedule_state(record)
local begun = redis.call('HGET', record, 'begun') and 1 or 0
if state ~= 'pending' and state ~= 'paused' then return { state, 0, begun } end
if new_due == 'overdue' then
  local ends = state == 'paused' and redis.call('ZSCORE', due, member)
  if not ends or tonumber(ends) > NOW_MS then return { state, 0, begun } end
elseif new_due ~= '' then
  if begun == 1 then return { state, 0, begun } end
  redis.call('HSET', record, 'due', new_due)
  if ARGV[8] then redis.call('HSET', record, 'fragment', ARGV[8], 'expires', ARGV[9]) end
  if state == 'pending' then
    add_due(due, apps, member, new_due)
    notice_due(apps, ARGV[7], new_due)
  end
  return with_refusal({ state, 1, begun })
end
remove_due(due, apps, member)
redis.call('ZREM', paused, member)
if begun == 0 then redis.call('SREM', slots, id) end
settle(record, 'cancelled', kept_ms)
return { 'cancelled', 1, begun }

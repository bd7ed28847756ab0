#!lua flags=allow-oom
-- Resume a schedule that is paused. It returns to the state it was paused in. If its time
-- has passed, it is due at once.
--
-- KEYS  record, due, apps with schedules due, sending, paused
-- ARGV  retention in ms (unused), clock, member, channel of notices, the due time that the
--       caller knows; optionally the fragment and its expiry in ms that replace the old ones
-- Returns the state afterwards, "" if there is no such schedule; and 1 if this call has
-- changed it, 0 if it was not paused, or -1 if it has another due time and nothing was done.
--
-- Commands  HMGET HSET ZADD ZREM

local record, due, apps, sending, paused = unpack(KEYS, 1, 5)
local member, channel, known_due = ARGV[3], ARGV[4], ARGV[5]

local state = schedule_state(record)
if state ~= 'paused' then return { state, 0 } end
local due_ms, begun, since, held =
  unpack(redis.call('HMGET', record, 'due', 'begun', 'paused', 'held'))
require_zrem(paused)

if begun then
  -- The buckets of a spread audience start later by the time of the pause.
  held = tonumber(held or '0') + NOW_MS - tonumber(since)
  redis.call('HSET', record, 'state', 'sending', 'resumed', int(NOW_MS), 'held', int(held))
  redis.call('ZADD', sending, int(NOW_MS), member)
  remove_due(due, apps, member)
  redis.call('ZREM', paused, member)
  publish(channel, 'sending')
  return with_refusal({ 'sending', 1 })
end

if due_ms ~= known_due then return { state, -1 } end
redis.call('HSET', record, 'state', 'pending', 'resumed', int(NOW_MS))
if ARGV[6] then redis.call('HSET', record, 'fragment', ARGV[6], 'expires', ARGV[7]) end
add_due(due, apps, member, due_ms)
redis.call('ZREM', paused, member)
notice_due(apps, channel, due_ms)
return with_refusal({ 'pending', 1 })

#!lua
-- Fire a schedule for one player: remove it from the timetable, append it to the log and
-- announce it, in one step, so that a crash cannot separate these. A full store refuses the
-- script before it begins, and the schedule fires when there is space.
--
-- KEYS  the log, mutes, record, due, apps with schedules due; devices and lease, if it is
--       for the device used last
-- ARGV  retention in ms, clock, entries_max, epoch for a new log, channel, largest fragment
--       to announce, member, tag, delay in ms from which it is late, JSON member that a
--       late fragment gets, lifetime of a sent record in ms, fields of the trace ("": none),
--       the live nodes
-- Returns 1 if it was fired; 0 if it was not due or no longer pending.
--
-- Commands  HMGET HSET ZSCORE

local mutes, record, due, apps, devices, lease = unpack(KEYS, 7)
local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, member, tag = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local late_after, due_at_json, kept_ms = tonumber(ARGV[9]), ARGV[10], ARGV[11]

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms then return 0 end
due_ms = tonumber(due_ms)
if due_ms > NOW_MS then return 0 end
local before = schedule_state(record)
-- One that was paused for too long is due here, too; the scheduler cancels it.
if before == 'paused' then return 0 end
if before ~= 'pending' then
  remove_due(due, apps, member)
  return 0
end

local inbox = inbox_at(1)
local state = read_state(inbox)
if state.head + 1 > OFFSET_MAX then return 0 end

local fields = redis.call('HMGET', record, 'fragment', 'type', 'expires', 'collapse')
local fragment = mark_late(fields[1], due_ms, late_after, due_at_json)
local entry = entry_of(
  tag, fragment, fields[2] or '', fields[3] or '0', fields[4] or '')
if ARGV[12] ~= '' then entry.trace = ARGV[12] end
local batch = without_muted(mutes, { entry })
if devices then entry.device = latest_device(devices, lease, 13, #ARGV) end
require_zrem(due)
if #batch > 0 then append(inbox, state, batch, new_epoch) end
redis.call('HSET', record, 'delivered', #batch, 'total', 1)
settle(record, 'sent', kept_ms)
remove_due(due, apps, member)
limit_length(inbox, state, entries_max)
announce(channel, state, batch, inline_max)
return with_refusal(1)

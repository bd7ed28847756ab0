-- Fire a schedule for one player: take it out of the timetable, give it its place in the
-- log and announce it, all in one step, so that there is nothing to crash between.
--
-- KEYS  the inbox, mutes, record, due, apps with something due, then devices and lease
--       if it is for the device used last
-- ARGV  retention ms, clock, entries kept, epoch if the log is new, channel, largest
--       fragment to announce whole, member, tag, lateness to be marked in ms, the member
--       that marks it, how long a sent one is kept in ms, then the nodes that are alive
-- Gives 1 when it fired; 0 when it was not due, or not there any more.

local mutes, record, due, apps, devices, lease = unpack(KEYS, 7)
local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, member, tag = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local late_after, due_at_json, kept_ms = tonumber(ARGV[9]), ARGV[10], ARGV[11]

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms then return 0 end
due_ms = tonumber(due_ms)
if due_ms > NOW_MS then return 0 end
if schedule_state(record) ~= 'pending' then
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
local batch = without_muted(mutes, { entry })
if devices then entry.device = latest_device(devices, lease, 12, #ARGV) end
remove_due(due, apps, member)
if #batch > 0 then append(inbox, state, batch, entries_max, new_epoch) end
redis.call('HSET', record, 'delivered', #batch, 'total', 1)
settle(record, 'sent', kept_ms)
announce(channel, state, batch, inline_max)
return 1

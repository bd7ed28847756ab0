-- Fire a schedule for one player: take it out of the timetable, give it its place in the
-- log and announce it, all in one step, so that there is nothing to crash between.
--
-- KEYS  state, log, done, reads, record, due, then devices and lease if it is for the
--       device used last
-- ARGV  retention ms, clock, entries kept, epoch if the log is new, channel, largest
--       fragment to announce whole, member, tag, lateness to be marked in ms, the member
--       that marks it, how long a sent one is kept in ms, then the nodes that are alive
-- Gives 1 when it fired; 0 when it was not due, or not there any more.

local record, due = KEYS[5], KEYS[6]
local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, member, tag = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local late_after, due_member, kept_ms = tonumber(ARGV[9]), ARGV[10], ARGV[11]

-- The device that was used last, of those that somebody listens on. With none of them
-- it is for whichever comes.
local function latest_device()
  local alive = {}
  for i = 12, #ARGV do alive[ARGV[i]] = true end
  local latest, used = nil, 0
  local items = redis.call('HGETALL', KEYS[7])
  for i = 1, #items, 2 do
    local device, ms = string.match(items[i + 1], '^(%S+) (%d+)$')
    if tonumber(ms) >= used and alive[string.match(items[i], '^[^:]+')]
      and redis.call('HEXISTS', KEYS[8], items[i]) == 1 then
      latest, used = device, tonumber(ms)
    end
  end
  return latest
end

local due_ms = redis.call('ZSCORE', due, member)
if not due_ms then return 0 end
due_ms = tonumber(due_ms)
if due_ms > NOW_MS then return 0 end
if schedule_state(record) ~= 'pending' then
  redis.call('ZREM', due, member)
  return 0
end

local inbox = inbox_at(1)
local state = read_state(inbox)
if state.head + 1 > OFFSET_MAX then return 0 end

local fragment = mark_late(redis.call('HGET', record, 'fragment'), due_ms, late_after,
  due_member)
local batch = { { tag, fragment, KEYS[7] and latest_device() } }
redis.call('ZREM', due, member)
local first = append(inbox, state, NOW_MS, batch, entries_max, new_epoch)
redis.call('HSET', record, 'delivered', 1, 'total', 1)
settle(record, 'sent', kept_ms)
announce(channel, state, first, batch, inline_max)
return 1

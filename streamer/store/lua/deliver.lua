-- Serve the next recipients of a schedule in one bucket: append to their logs and take
-- them off the list, in one step, so that whoever goes on after a crash goes on exactly
-- where it stopped.
--
-- KEYS  recipients, then state, log, done, reads of each
-- ARGV  retention ms, clock, entries kept, epoch if a log is new, largest fragment to
--       announce whole, fragment, due ms, lateness to be marked in ms, the member that
--       marks it, then player, channel and tag of each
-- Gives how many were served: all, or 0 when they are not the next ones any more.

local recipients = KEYS[1]
local entries_max, new_epoch, inline_max = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local fragment = mark_late(ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9])
local FIRST = 10
local count = (#KEYS - 1) / 4

local waiting = redis.call('LRANGE', recipients, 0, count - 1)
for i = 1, count do
  if waiting[i] ~= ARGV[FIRST + 3 * (i - 1)] then return 0 end
end

redis.call('LTRIM', recipients, count, -1)
for i = 1, count do
  local at = FIRST + 3 * (i - 1)
  local inbox = inbox_at(4 * i - 2)
  local state = read_state(inbox)
  if state.head + 1 <= OFFSET_MAX then
    local batch = { { ARGV[at + 2], fragment } }
    local first = append(inbox, state, NOW_MS, batch, entries_max, new_epoch)
    announce(ARGV[at + 1], state, first, batch, inline_max)
  end
end
return count

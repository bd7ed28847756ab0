#!lua
-- Serve the next recipients of a schedule in one bucket: append to their logs and remove
-- them from the list, in one step. After a crash the list is exactly what is left to do. A
-- full store refuses the script before it begins; the others are served when there is space.
--
-- KEYS  recipients; then for each recipient the log and mutes, and devices and lease if
--       there are nodes
-- ARGV  retention in ms, clock, entries_max, epoch for a new log, largest fragment to
--       announce, fragment, due time in ms, delay in ms from which it is late, JSON member
--       that a late fragment gets, type, expiry in ms (0: never), collapse key ("": none),
--       fields of the trace ("": none), number of nodes, the live nodes if it is for the
--       device used last; then player, channel and tag of each recipient
-- Returns how many were served: all, or 0 if they are no longer the next ones.
--
-- Commands  LRANGE LTRIM

local recipients = KEYS[1]
local entries_max, new_epoch, inline_max = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local fragment = mark_late(ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9])
local kind, expires, collapse = ARGV[10], ARGV[11], ARGV[12]
local trace, nodes = ARGV[13] ~= '' and ARGV[13] or nil, tonumber(ARGV[14])
local FIRST, KEYS_EACH = 15 + nodes, nodes > 0 and 9 or 7
local count = (#KEYS - 1) / KEYS_EACH

local waiting = redis.call('LRANGE', recipients, 0, count - 1)
for i = 1, count do
  if waiting[i] ~= ARGV[FIRST + 3 * (i - 1)] then return 0 end
end

redis.call('LTRIM', recipients, count, -1)
local served = {}
for i = 1, count do
  local at, keys = FIRST + 3 * (i - 1), 2 + KEYS_EACH * (i - 1)
  local inbox = inbox_at(keys)
  local state = read_state(inbox)
  local entry = entry_of(ARGV[at + 2], fragment, kind, expires, collapse)
  entry.trace = trace
  if nodes > 0 then
    entry.device = latest_device(KEYS[keys + 7], KEYS[keys + 8], 15, 14 + nodes)
  end
  local batch = without_muted(KEYS[keys + 6], { entry })
  if #batch > 0 and state.head + 1 <= OFFSET_MAX then
    append(inbox, state, batch, new_epoch)
    served[#served + 1] = { ARGV[at + 1], state, batch, inbox }
  end
end
for _, one in ipairs(served) do limit_length(one[4], one[2], entries_max) end
for _, one in ipairs(served) do announce(one[1], one[2], one[3], inline_max) end
return with_refusal(count)

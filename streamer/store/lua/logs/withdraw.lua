#!lua flags=allow-oom
-- Withdraw an entry: it ends, and a control entry is appended for the clients that have it.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, entries_max, epoch for a new log, channel, tag of the control
--       entry, the withdrawn id; then time, offset and tag of its entry, or nothing if that
--       is in another log
-- Returns 1 if it was withdrawn, 0 if it had ended before, -1 if there is no such entry.
-- Error LOGFULL if no offset is left.
--
-- Commands  ZSCORE

local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local note = { tag = ARGV[6], fragment = '', withdraws = ARGV[7] }
local at_us, offset, tag = ARGV[8], ARGV[9], ARGV[10]

local inbox, state, floor = open_inbox(1)

if offset then
  local number = tonumber(offset)
  local item = number >= floor and item_at(inbox, at_us, offset, tag)
  if not item or field(item, 'w') then return -1 end
  if state.ended and is_ended(redis.call('ZSCORE', inbox.ends, offset)) then return 0 end
end
if state.head + 1 > OFFSET_MAX then
  return redis.error_reply('LOGFULL offsets of this log are used up')
end

local batch = { note }
append(inbox, state, batch, new_epoch)
if offset then end_entry(inbox, state, tonumber(offset), WITHDRAWN) end
limit_length(inbox, state, entries_max)
announce(channel, state, batch, 0)
return with_refusal(1)

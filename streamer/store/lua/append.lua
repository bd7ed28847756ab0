-- Append a batch to one player's log, atomically, and announce it.
--
-- KEYS  state, log, done, reads, once
-- ARGV  retention ms, clock, entries kept, epoch if the log is new, channel,
--       largest fragment to announce whole, digest of the request ("" without a key),
--       lifetime of the once record in ms, then tag and fragment of each entry
-- Gives replayed (0 or 1), epoch, time, offset of the first entry, tags.
--
-- Everything is checked before the first write, because a script that fails half way
-- keeps what it wrote.

local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local inline_max, digest, once_ms = tonumber(ARGV[6]), ARGV[7], ARGV[8]

if digest ~= '' then
  local record = redis.call('GET', KEYS[5])
  if record then
    local seen, epoch, ms, offset, tags =
      string.match(record, '^(%S+) (%d+) (%d+) (%d+) (.*)$')
    if seen ~= digest then return redis.error_reply('CONFLICT') end
    local list = {}
    for tag in string.gmatch(tags, '%d+') do list[#list + 1] = tag end
    return { 1, epoch, ms, offset, list }
  end
end

local batch, tags = {}, {}
for i = 9, #ARGV, 2 do
  batch[#batch + 1] = { ARGV[i], ARGV[i + 1] }
  tags[#tags + 1] = ARGV[i]
end

local inbox = inbox_at(1)
local state = read_state(inbox)
if state.head + #batch > OFFSET_MAX then
  return redis.error_reply('LOGFULL offsets of this log are used up')
end

local first = append(inbox, state, NOW_MS, batch, entries_max, new_epoch)
floor_offset(inbox, state)
if digest ~= '' then
  redis.call('SET', KEYS[5], table.concat({ digest, int(state.epoch), int(state.ms),
    int(first), table.concat(tags, ',') }, ' '), 'PX', once_ms)
end
announce(channel, state, first, batch, inline_max)
return { 0, int(state.epoch), int(state.ms), int(first), tags }

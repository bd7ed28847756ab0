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
local FIRST = 9
local count = (#ARGV - FIRST + 1) / 2

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

local state = read_state()
local ms = math.max(NOW_MS, state.ms)
if state.head + count > 4294967295 then
  return redis.error_reply('LOGFULL offsets of this log are used up')
end

if state.epoch == 0 then
  -- A log without state is the rest of something lost: its offsets mean nothing. Looked
  -- for first, because a store that is full lets a script go on that has begun to write.
  if redis.call('EXISTS', LOG, DONE, READS) > 0 then
    redis.call('DEL', LOG, DONE, READS)
  end
  state.epoch = tonumber(new_epoch)
end

local tags = {}
for i = 1, count do
  local tag, fragment = ARGV[FIRST + 2 * i - 2], ARGV[FIRST + 2 * i - 1]
  local offset = int(state.head + i)
  redis.call('XADD', LOG, int(ms) .. '-' .. offset, 't', tag, 'n', fragment)
  tags[i] = tag
end
redis.call('XTRIM', LOG, 'MAXLEN', entries_max)
local first = int(state.head + 1)
redis.call('HSET', STATE, 'epoch', int(state.epoch), 'head', int(state.head + count),
  'ms', int(ms), 'tag', tags[count])

-- A day more than the retention, so that a key never goes before its entries do; the
-- state stays as long again, so that a player who was away finds offsets going on.
local lifetime = int(RETENTION_MS + 86400000)
redis.call('PEXPIRE', LOG, lifetime)
redis.call('PEXPIRE', DONE, lifetime)
redis.call('PEXPIRE', READS, lifetime)
redis.call('PEXPIRE', STATE, int(2 * RETENTION_MS + 2 * 86400000))
floor_offset(state)

if digest ~= '' then
  redis.call('SET', KEYS[5], table.concat(
    { digest, int(state.epoch), int(ms), first, table.concat(tags, ',') }, ' '),
    'PX', once_ms)
end

for i = 1, count do
  local fragment = ARGV[FIRST + 2 * i - 1]
  if #fragment > inline_max then fragment = '' end
  redis.call('SPUBLISH', channel, table.concat({ 'entry', int(state.epoch), int(ms),
    int(state.head + i), tags[i], fragment }, ' '))
end
return { 0, int(state.epoch), int(ms), first, tags }

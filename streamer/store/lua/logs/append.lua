-- Append a batch to one log, atomically, and announce it.
--
-- KEYS  the log, mutes; once, if there is a digest; devices and lease, if there are nodes
-- ARGV  retention in ms, clock, entries_max, epoch for a new log, largest fragment to
--       announce, digest of the request ("" without a key), lifetime of the once record in
--       ms, channel, arguments per entry (3 or 6) and, after a space, fields of the trace if
--       there is one; if 6, number of live nodes, and the nodes; then for each entry tag,
--       fragment, type and, if 6, expiry in ms (0: never), collapse key ("": none), whether
--       it is for the device used last (0 or 1)
-- Returns, as one text, replayed (0 or 1), epoch, time, offset of the first stored entry,
-- and the tags separated by commas, "-" for entries whose type the player has muted.
-- Error CONFLICT if the key belongs to another digest, LOGFULL if no offset is left.
--
-- Most appends end in _append_fast.lua, which is included before this.
--
-- Commands  GET SET

local entries_max, new_epoch, inline_max = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local digest, once_ms, channel = ARGV[6], ARGV[7], ARGV[8]
local each, trace = tonumber(string.sub(ARGV[9], 1, 1)), nil
if #ARGV[9] > 1 then trace = string.sub(ARGV[9], 3) end
local nodes = each > 3 and tonumber(ARGV[10]) or 0
local once = 8

if digest ~= '' then
  local record = redis.call('GET', KEYS[once])
  if record then
    local seen, answer = string.match(record, '^(%S+) (.*)$')
    if seen ~= digest then return redis.error_reply('CONFLICT') end
    return '1 ' .. answer
  end
end

local all, device = {}, nil
for i = each > 3 and 11 + nodes or 10, #ARGV, each do
  local entry = entry_of(ARGV[i], ARGV[i + 1], ARGV[i + 2],
    each > 3 and ARGV[i + 3] or '0', each > 3 and ARGV[i + 4] or '')
  if nodes > 0 and ARGV[i + 5] == '1' then
    device = device or latest_device(KEYS[#KEYS - 1], KEYS[#KEYS], 11, 10 + nodes)
    entry.device = device
  end
  entry.trace = trace
  all[#all + 1] = entry
end

local inbox = inbox_at(1)
local state = read_state(inbox)
local batch = without_muted(KEYS[7], all)
if state.head + #batch > OFFSET_MAX then
  return redis.error_reply('LOGFULL offsets of this log are used up')
end

local first = state.head + 1
if #batch > 0 then append(inbox, state, batch, new_epoch) end
local tags = {}
for i, entry in ipairs(all) do tags[i] = entry.muted and '-' or entry.tag end
local answer = table.concat(
  { int(state.epoch), int(state.at_us), int(first), table.concat(tags, ',') }, ' ')
if digest ~= '' then
  redis.call('SET', KEYS[once], digest .. ' ' .. answer, 'PX', once_ms)
end
limit_length(inbox, state, entries_max)
announce(channel, state, batch, inline_max)
return with_refusal('0 ' .. answer)

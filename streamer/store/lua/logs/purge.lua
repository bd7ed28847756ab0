#!lua flags=allow-oom
-- Purge an entry: remove its text. It keeps its offset, time and tag, and has ended; if it
-- had not, it is withdrawn first.
--
-- KEYS  the log, its copy while it is rewritten
-- ARGV  retention in ms, clock, entries_max, epoch (unused), channel, tag of the control
--       entry, the purged id; then time, offset and tag of its entry
-- Returns 1 if text was removed, 0 if it was gone before, -1 if there is no such entry.
-- Error LOGFULL if the entry has not ended and no offset is left.
--
-- O(entries of the log): it is rewritten.
--
-- Commands  HDEL HGETALL ZSCORE

local entries_max, new_epoch, channel = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local note = { tag = ARGV[6], fragment = '', withdraws = ARGV[7] }
local at_us, offset, tag = ARGV[8], ARGV[9], ARGV[10]

local inbox, state, floor = open_inbox(1)

local number = tonumber(offset)
local item = number >= floor and item_at(inbox, at_us, offset, tag)
if not item or field(item, 'w') then return -1 end

local batch = {}
if not (state.ended and is_ended(redis.call('ZSCORE', inbox.ends, offset))) then
  if state.head + 1 > OFFSET_MAX then
    return redis.error_reply('LOGFULL offsets of this log are used up')
  end
  batch[1] = note
  append(inbox, state, batch, new_epoch)
  end_entry(inbox, state, number, WITHDRAWN)
end
local had_text = item[2][4] ~= ''
if had_text then
  -- The collapse key is text of the entry. An entry that has ended cannot be replaced.
  local own, fields = table.concat({ at_us, offset, tag }, ' '), nil
  fields = redis.call('HGETALL', inbox.collapse)
  for i = 1, #fields, 2 do
    if fields[i + 1] == own then redis.call('HDEL', inbox.collapse, fields[i]) end
  end
  local replaced = field(item, 'r')
  rewrite(inbox.log, KEYS[7], function(id, fields)
    if id ~= item[1] then return fields end
    if replaced then return { 't', tag, 'n', '', 'r', replaced } end
    return { 't', tag, 'n', '' }
  end, #batch > 0 and entries_max)
end
announce(channel, state, batch, 0)
return with_refusal((had_text or #batch > 0) and 1 or 0)

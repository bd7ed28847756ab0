-- Read the entries after a position, or return why that is not possible.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, start (after, latest or earliest), epoch, time, offset and
--       tag of the position, maximum number of entries, maximum number of entries after the
--       position (0: any), size in bytes after which to stop early (0: none)
-- Returns reason of the gap ("" for none), resolved start (epoch, time, offset, tag), head
-- (the same), unread entries, version of the marks, items, unread entries up to the position
-- that was given or resolved, when the next entry expires in ms (0: none).
--
-- An epoch of 0 is not compared: it comes from a bare notification id. No entry is left
-- out, so offsets ascend by one. Ended entries are returned without their fragment and with
-- a field "x"; control entries, which have no fragment, are returned as they are.
--
-- Commands  XRANGE

local start, epoch = ARGV[3], tonumber(ARGV[4])
-- The time stays text: that of a forged position may be larger than a Lua number holds.
local at_us, offset, tag = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local count, replay_max = tonumber(ARGV[8]), tonumber(ARGV[9])
local bytes_max = tonumber(ARGV[10])
local STEP = 8

local inbox, state, floor = open_inbox(1)
local head = { int(state.epoch), int(state.at_us), int(state.head), state.tag }

local function gap()
  if epoch ~= 0 and epoch ~= state.epoch then return 'epoch' end
  if offset > state.head then return 'ahead' end
  if offset + 1 < floor then return 'trimmed' end
  if offset == state.head then
    if offset > 0 and (tag ~= state.tag or at_us ~= int(state.at_us)) then return 'diverged' end
  elseif offset >= floor and not item_at(inbox, at_us, int(offset), tag) then
    return 'diverged'
  end
  if replay_max > 0 and state.head - offset > replay_max then return 'too_far' end
  return nil
end

local from, reason = head, nil
if start == 'after' then
  reason = gap()
  if not reason and offset > 0 then
    from = { int(state.epoch), at_us, int(offset), tag }
  elseif not reason then
    from = { int(state.epoch), '0', '0', '0' }
  end
elseif start == 'earliest' and floor <= state.head then
  -- Only the offset of this position matters. A time of 0 reads from the oldest entry.
  from = { int(state.epoch), '0', int(floor - 1), '0' }
end

-- An ended item as readers get it: its position, and the id that it replaces.
local function ended_item(item)
  local fields = { 't', item[2][2], 'n', '', 'x', '1' }
  local replaced = field(item, 'r')
  if replaced then
    fields[7] = 'r'
    fields[8] = replaced
  end
  return { item[1], fields }
end

-- A few items at a time, so that large ones beyond the size are not read in vain.
local function items_after(after)
  local items, bytes = {}, 0
  repeat
    local step = math.min(count - #items, STEP)
    if bytes_max == 0 then step = count end
    local got = redis.call('XRANGE', inbox.log, after, '+', 'COUNT', step)
    local ended = ended_items(inbox, state, got)
    for _, item in ipairs(got) do
      local _, at = split_id(item[1])
      local whole = not ended[at] or field(item, 'w')
      items[#items + 1] = whole and item or ended_item(item)
      bytes = bytes + #item[2][4]
    end
    if #got > 0 then after = '(' .. got[#got][1] end
  until #got < step or #items >= count or bytes >= bytes_max
  return items
end

local items = {}
if not reason and start ~= 'latest' and count > 0 and state.head >= tonumber(from[3]) + 1 then
  -- The time of a position before the oldest item cannot be verified. A forged one would
  -- skip items, so it is ignored.
  local after = '-'
  if tonumber(from[3]) >= floor then after = '(' .. from[2] .. '-' .. from[3] end
  items = items_after(after)
end
-- Where the log is another one than that of the position, all entries are newer.
local before = tonumber(from[3])
if reason == 'trimmed' or reason == 'too_far' then before = offset end
return { reason or '', from, head, count_unread(inbox, state, floor), state.marks, items,
  count_unread(inbox, state, floor, before), int(state.ends_at or 0) }

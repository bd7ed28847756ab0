-- Read what follows a position, or say why that is not possible.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, start (after, latest or earliest), epoch, time, offset and
--       tag of the position, entries to return at most, entries behind at most (0: any),
--       bytes to read, about, whatever the number of entries (0: any)
-- Gives gap ("" for none), the start that was resolved (epoch, time, offset, tag), the
--       head (the same), unread, marks, items of the log.
--
-- A position's epoch of 0 is not compared: it comes from a bare notification id. Nothing
-- is left out, so that offsets go up by one: what is over comes without its fragment and
-- with a field "x". One that withdraws another has no fragment, and comes as it is.

local start, offset, tag = ARGV[3], tonumber(ARGV[6]), ARGV[7]
local epoch, ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local count, replay_max = tonumber(ARGV[8]), tonumber(ARGV[9])
local bytes_max = tonumber(ARGV[10])
local STEP = 8

local inbox, state, floor = open_inbox(1)
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }

local function gap()
  if epoch ~= 0 and epoch ~= state.epoch then return 'epoch' end
  if offset > state.head then return 'ahead' end
  if offset + 1 < floor then return 'trimmed' end
  if offset == state.head then
    if offset > 0 and (tag ~= state.tag or ms ~= state.ms) then return 'diverged' end
  elseif offset >= floor and not item_at(inbox, int(ms), int(offset), tag) then
    return 'diverged'
  end
  if replay_max > 0 and state.head - offset > replay_max then return 'too_far' end
  return nil
end

local from, reason = head, nil
if start == 'after' then
  reason = gap()
  if not reason and offset > 0 then
    from = { int(state.epoch), int(ms), int(offset), tag }
  elseif not reason then
    from = { int(state.epoch), '0', '0', '0' }
  end
elseif start == 'earliest' and floor <= state.head then
  -- Only the offset matters of a place in front of an entry; a time of 0 reads from
  -- the first one kept.
  from = { int(state.epoch), '0', int(floor - 1), '0' }
end

-- What a reader gets of an item that is over: its place, and what it has to take back.
local function ended_item(item)
  local fields = { 't', item[2][2], 'n', '', 'x', '1' }
  local replaced = field(item, 'r')
  if replaced then
    fields[7] = 'r'
    fields[8] = replaced
  end
  return { item[1], fields }
end

-- Some items at a time, so that large ones are not all fetched to be left out.
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
  -- The time of a place right in front of the first item has nothing to be compared
  -- with: it may be forged, and would lead past items.
  local after = '-'
  if tonumber(from[3]) >= floor then after = '(' .. from[2] .. '-' .. from[3] end
  items = items_after(after)
end
return { reason or '', from, head, count_unread(inbox, state, floor), state.marks, items }

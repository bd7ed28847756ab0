-- Read what follows a position, or say why that is not possible.
--
-- KEYS  state, log, done, reads
-- ARGV  retention ms, clock, start (after, latest or earliest), epoch, time, offset and
--       tag of the position, entries to return at most, entries behind at most (0: any)
-- Gives gap ("" for none), the start that was resolved (epoch, time, offset, tag), the
--       head (the same), unread, marks, items of the log.
--
-- A position's epoch of 0 is not compared: it comes from a bare notification id.

local start, offset, tag = ARGV[3], tonumber(ARGV[6]), ARGV[7]
local epoch, ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local count, behind_max = tonumber(ARGV[8]), tonumber(ARGV[9])

local state = read_state()
local floor = floor_offset(state)
local head = { int(state.epoch), int(state.ms), int(state.head), state.tag }

local function gap()
  if epoch ~= 0 and epoch ~= state.epoch then return 'epoch' end
  if offset > state.head then return 'ahead' end
  if offset + 1 < floor then return 'trimmed' end
  if offset == 0 then return nil end
  if offset == state.head then
    if tag ~= state.tag or ms ~= state.ms then return 'diverged' end
  elseif offset >= floor and not item_at(int(ms), int(offset), tag) then
    return 'diverged'
  end
  if behind_max > 0 and state.head - offset > behind_max then return 'too_far' end
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

local items = {}
if not reason and start ~= 'latest' and count > 0 and state.head >= tonumber(from[3]) + 1 then
  local after = '-'
  if from[2] ~= '0' then after = '(' .. from[2] .. '-' .. from[3] end
  items = redis.call('XRANGE', LOG, after, '+', 'COUNT', count)
end
return { reason or '', from, head, unread(state, floor), state.marks, items }

-- Find positions in a log, whether their entries have ended or not.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, time, offset and tag of each position
-- Returns epoch, lowest offset of the log, and four lists of offsets: notifications that have
-- not ended; those that have; control entries; and offsets below the lowest one.
--
-- Of an entry that has left the log only its offset and a bound of its time are known, so the
-- last list may have positions of another log.
--
-- Commands  XRANGE ZSCORE

local inbox, state, floor = open_inbox(1)
local live, ended, controls, left = {}, {}, {}, {}

local oldest_us = nil
local function may_have_left(at_us, number, tag)
  if number == state.head then return at_us == int(state.at_us) and tag == state.tag end
  if not oldest_us then
    local first = redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1]
    oldest_us = first and split_id(first[1]) or state.at_us
  end
  return tonumber(at_us) <= oldest_us
end

local function list_of(at_us, offset, tag)
  local number = tonumber(offset)
  if number < 1 or number > state.head then return nil end
  if number < floor then return may_have_left(at_us, number, tag) and left or nil end
  local item = item_at(inbox, at_us, offset, tag)
  if not item then return nil end
  if field(item, 'w') then return controls end
  if state.ended and is_ended(redis.call('ZSCORE', inbox.ends, offset)) then return ended end
  return live
end

for i = 3, #ARGV, 3 do
  local list = list_of(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if list then list[#list + 1] = ARGV[i + 1] end
end
return { int(state.epoch), int(floor), live, ended, controls, left }

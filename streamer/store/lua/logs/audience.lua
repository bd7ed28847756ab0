-- The state of an audience's log, and which of its entries have ended. Such a log has no
-- read marks, so every offset that is done has ended.
--
-- KEYS  the log
-- ARGV  retention in ms, clock
-- Returns head (epoch, time, offset, tag), lowest offset, offset of the first bit, bitmap.

local inbox, state, floor = open_inbox(1)
local base = state.base
local bits = ''
if state.ended then
  -- Bits below the oldest entry are omitted.
  base = math.max(base, floor - floor % 8)
  bits = redis.call('GETRANGE', inbox.done, int((base - state.base) / 8), -1)
end
return { { int(state.epoch), int(state.at_us), int(state.head), state.tag }, int(floor),
  int(base), bits }

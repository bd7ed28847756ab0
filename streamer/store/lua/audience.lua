-- Say where an audience's log stands and which of its entries are over. Nobody marks
-- anything in it, so that what is done there is just that.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock
-- Gives head (epoch, time, offset, tag), floor, the offset of the first bit, bits.

local inbox, state, floor = open_inbox(1)
local base = state.base
local bits = ''
if state.ended then
  -- What lies below the oldest entry is left out.
  base = math.max(base, floor - floor % 8)
  bits = redis.call('GETRANGE', inbox.done, int((base - state.base) / 8), -1)
end
return { { int(state.epoch), int(state.ms), int(state.head), state.tag }, int(floor),
  int(base), bits }

-- The state of a log, and which of its entries are done. An audience's log has no read
-- marks, so every offset that is done has ended.
--
-- KEYS  the log
-- ARGV  retention in ms, clock
-- Returns head (epoch, time, offset, tag), lowest offset, offset of the first bit, bitmap,
-- number of entries that have expired.
--
-- Commands  GETRANGE

local inbox, state, floor = open_inbox(1)
-- Bits below the oldest entry are omitted.
local base = math.max(state.base, floor - floor % 8)
local bits = redis.call('GETRANGE', inbox.done, int((base - state.base) / 8), -1)
return { { int(state.epoch), int(state.at_us), int(state.head), state.tag }, int(floor),
  int(base), bits, int(state.ended or 0) }

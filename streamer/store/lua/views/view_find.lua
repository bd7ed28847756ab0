-- Find which positions are entries of an audience's log that have not ended.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, time, offset and tag of each position
-- Returns epoch, lowest offset of the log, and the offsets of these entries.

local inbox, state, floor = open_inbox(1)
local found = {}
for i = 3, #ARGV, 3 do
  local number = tonumber(ARGV[i + 1])
  if number >= floor and number <= state.head
    and item_at(inbox, ARGV[i], ARGV[i + 1], ARGV[i + 2])
    and not (state.ended and is_ended(redis.call('ZSCORE', inbox.ends, ARGV[i + 1]))) then
    found[#found + 1] = ARGV[i + 1]
  end
end
return { int(state.epoch), int(floor), found }

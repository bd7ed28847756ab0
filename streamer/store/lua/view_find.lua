-- Which of these places are alive entries of an audience's log?
--
-- KEYS  state, log, done, reads, ends, collapse
-- ARGV  retention ms, clock, then time, offset and tag of each
-- Gives epoch, the lowest offset kept, and the offsets of those that are.

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

-- Note that a client has everything up to a position, if the log knows it.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, epoch, time, offset, tag
-- Gives 1 when that was news, else 0.

local inbox, state, floor = open(1)
local offset = tonumber(ARGV[5])
if not good(state, floor, inbox, tonumber(ARGV[3]), tonumber(ARGV[4]), offset, ARGV[6]) then
  return 0
end
if offset <= tonumber(redis.call('HGET', inbox.state, 'acked') or 0) then return 0 end
redis.call('HSET', inbox.state, 'acked', int(offset))
return 1

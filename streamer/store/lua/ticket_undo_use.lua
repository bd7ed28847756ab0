-- Undo the first use of a ticket, by which no stream was opened.
--
-- KEYS  ticket

local kept = redis.call('GET', KEYS[1])
if not kept then return end
local first, rest = string.match(kept, '^%d (%d+) (.*)$')
-- Its first time may be over: the store then drops it at once.
redis.call('SET', KEYS[1], '0 ' .. first .. ' ' .. rest, 'PXAT', first)

#!lua flags=allow-oom
-- Undo the first use of a ticket that has opened no stream.
--
-- KEYS  ticket
-- Returns nil.
--
-- Commands  GET SET

local kept = redis.call('GET', KEYS[1])
if not kept then return end
local first, rest = string.match(kept, '^%d (%d+) (.*)$')
-- If the time for its first use has passed, the store deletes it at once.
redis.call('SET', KEYS[1], '0 ' .. first .. ' ' .. rest, 'PXAT', first)

#!lua
-- Move the next recipient of a schedule in one bucket to the end of the list: it cannot be
-- served now, and the others wait behind it.
--
-- KEYS  recipients
-- ARGV  the recipient
-- Returns 1, or 0 if it is no longer the next one.
--
-- Commands  LINDEX LSET LTRIM RPUSH

local recipients, player = KEYS[1], ARGV[1]

if redis.call('LINDEX', recipients, 0) ~= player then return 0 end
local number = redis.call('LINDEX', recipients, -1)
redis.call('RPUSH', recipients, number)
redis.call('LTRIM', recipients, 1, -1)
-- The last write, which nothing has to undo.
redis.call('LSET', recipients, -2, player)
return 1

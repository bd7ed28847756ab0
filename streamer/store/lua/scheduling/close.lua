#!lua flags=allow-oom
-- Remove the recipients of a cancelled schedule in one bucket who are not served yet.
-- Afterwards nobody is served, also by a sender that is doing so.
--
-- KEYS  recipients
-- ARGV  lifetime in ms of what remains
-- Returns the number of recipients that were served. Idempotent.
--
-- Commands  LINDEX LLEN LSET LTRIM PEXPIRE RPUSH

local recipients = KEYS[1]
local last = redis.call('LINDEX', recipients, -1)
if not last then
  -- The players with cards are not known yet, and shall not be.
  redis.call('RPUSH', recipients, '\0' .. '0')
  redis.call('PEXPIRE', recipients, ARGV[1])
  return 0
end
local left = redis.call('LLEN', recipients) - 1
local served = tonumber(string.sub(last, 2)) - left
redis.call('PEXPIRE', recipients, ARGV[1])
redis.call('LTRIM', recipients, left, -1)
-- The last write, which nothing has to undo.
redis.call('LSET', recipients, -1, '\0' .. string.format('%d', served))
return served

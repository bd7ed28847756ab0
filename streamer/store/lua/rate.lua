-- Count a call, unless there were too many within the window before it.
--
-- KEYS  rate
-- ARGV  clock in ms (0: the store's own), calls at most, window in ms
-- Gives 0 when the call is let through, else the ms until one would be.
--
-- The key holds the times of the last calls that were let through, newest first, and
-- never more of them than are allowed: a call may come as soon as the oldest of them has
-- left the window. So there is no second, wherever it begins, that has more.

local rate, now = KEYS[1], tonumber(ARGV[1])
local calls_max, window = tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local oldest = tonumber(redis.call('LINDEX', rate, calls_max - 1) or 0)
-- A clock that was set back must not lock everybody out until it has caught up.
if oldest > now - window and oldest <= now then return oldest + window - now end
redis.call('LPUSH', rate, string.format('%.0f', now))
redis.call('LTRIM', rate, 0, calls_max - 1)
redis.call('PEXPIRE', rate, window)
return 0

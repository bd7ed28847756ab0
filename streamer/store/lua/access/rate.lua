-- Admit a call, unless too many were admitted within the window before it.
--
-- KEYS  rate
-- ARGV  clock in ms (0: the store's own), maximum number of calls, window in ms
-- Returns 0 if the call is admitted, otherwise the time in ms until one would be.
--
-- The key has the times of the last admitted calls, newest first, at most the maximum
-- number. A call is admitted when the oldest of them has left the window, so no window has
-- more calls than the maximum, wherever it begins.
--
-- Commands  LINDEX LPUSH LTRIM PEXPIRE TIME

local rate, now = KEYS[1], tonumber(ARGV[1])
local calls_max, window = tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local oldest = tonumber(redis.call('LINDEX', rate, calls_max - 1) or 0)
-- After the clock was set back, calls must not be refused until it has caught up.
if oldest > now - window and oldest <= now then return oldest + window - now end
redis.call('LPUSH', rate, string.format('%.0f', now))
redis.call('LTRIM', rate, 0, calls_max - 1)
redis.call('PEXPIRE', rate, window)
return 0

-- Lend permits from a token bucket, if it has as many as needed.
--
-- KEYS  bucket
-- ARGV  clock in ms (0: the store's own), permits per second, capacity of the bucket,
--       permits needed, permits requested
-- Returns the number lent, 0 if there are fewer than needed, and the number left, as text.
--
-- A need above the capacity is met by a full bucket, which then goes below 0. Beyond the
-- need at most an eighth of the permits is lent, so that no node takes the last ones as a
-- reserve.
--
-- Commands  GET SET TIME

local bucket, now = KEYS[1], tonumber(ARGV[1])
local per_s, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
local needed, requested = tonumber(ARGV[4]), tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local left, at = burst, now
local kept = redis.call('GET', bucket)
if kept then
  left, at = string.match(kept, '^(%S+) (%d+)$')
  left, at = tonumber(left), tonumber(at)
  left = math.min(burst, left + math.max(0, now - at) * per_s / 1000)
end

local lent = 0
-- A caller that has waited for the returned time must not fail because of rounding.
if left + 0.000001 >= math.min(needed, burst) then
  lent = math.max(needed, math.min(requested, math.floor(left / 8)))
end
-- After the clock was set back, the bucket must not stop filling until it has caught up.
if lent > 0 or now < at then
  left = left - lent
  -- A full bucket needs no key.
  local full_ms = math.ceil((burst - left) / per_s * 1000) + 1
  redis.call('SET', bucket, string.format('%.6f %.0f', left, now), 'PX',
    string.format('%.0f', full_ms))
end
return { lent, string.format('%.6f', left) }

-- Lend permits of a bucket, if it has what is needed.
--
-- KEYS  bucket
-- ARGV  clock in ms (0: the store's own), permits that come in a second, permits that
--       the bucket holds, permits needed, permits wanted
-- Gives how many are lent, 0 if it has not what is needed, and how many are left, as
-- text.
--
-- Who needs more than the bucket holds gets it from a full one, which then owes. What is
-- wanted beyond the need is at most an eighth of what is there, so that one node does
-- not take the last for a reserve of its own.

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
-- By a hair: who waited as long as it was told must not fail by a rounding.
if left + 0.000001 >= math.min(needed, burst) then
  lent = math.max(needed, math.min(requested, math.floor(left / 8)))
end
-- A clock that was set back must not stop the filling until it has caught up.
if lent > 0 or now < at then
  left = left - lent
  -- A full bucket is as good as none.
  local full_ms = math.ceil((burst - left) / per_s * 1000) + 1
  redis.call('SET', bucket, string.format('%.6f %.0f', left, now), 'PX',
    string.format('%.0f', full_ms))
end
return { lent, string.format('%.6f', left) }

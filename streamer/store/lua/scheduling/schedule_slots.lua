#!lua
-- Take slots for schedules that are about to be added, for all or none.
--
-- KEYS  pending
-- ARGV  clock in ms (0: the store's own), number of slots, lifetime in ms, time in ms to
--       return if waiting does not help, due time in ms and id of each schedule
-- Returns 0 and the ids that had no slot before, or the time in ms until enough slots may
-- be free, and no ids.
--
-- A slot is freed when its schedule is due, whether it was sent or not. That also frees the
-- slots of a node that crashed before it added the schedule.
--
-- Commands  PEXPIRE TIME ZADD ZCARD ZRANGE ZREMRANGEBYSCORE ZSCORE

local pending, now, slots_max = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local lifetime, retry_ms = ARGV[3], tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

redis.call('ZREMRANGEBYSCORE', pending, '-inf', string.format('%.0f', now))
local fresh = {}
for i = 5, #ARGV, 2 do
  if not redis.call('ZSCORE', pending, ARGV[i + 1]) then fresh[#fresh + 1] = i end
end
if #fresh == 0 then return { 0, {} } end

local taken = redis.call('ZCARD', pending)
local excess = taken + #fresh - slots_max
if excess > 0 then
  if excess > taken then return { retry_ms, {} } end
  local last = redis.call('ZRANGE', pending, excess - 1, excess - 1, 'WITHSCORES')
  return { math.max(1, tonumber(last[2]) - now), {} }
end

local ids = {}
for _, i in ipairs(fresh) do
  redis.call('ZADD', pending, ARGV[i], ARGV[i + 1])
  ids[#ids + 1] = ARGV[i + 1]
end
redis.call('PEXPIRE', pending, lifetime)
return { 0, ids }

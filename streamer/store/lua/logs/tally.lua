#!lua flags=allow-oom
-- Count the players who have read or acknowledged entries of an audience.
--
-- KEYS  tally, log
-- ARGV  retention in ms (unused), what ("read" or "acked"), increment, offsets
-- Returns 0.
--
-- The tally expires with the log. Counts of entries that have left the log are deleted
-- when many have collected.
--
-- Commands  HDEL HINCRBY HKEYS HLEN PEXPIRE PTTL XLEN XRANGE

local tally, log, what, by = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
for i = 4, #ARGV do redis.call('HINCRBY', tally, what .. ' ' .. ARGV[i], by) end

local kept = redis.call('XLEN', log)
if redis.call('HLEN', tally) > 2 * kept + 1000 then
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local floor = first and tonumber(string.match(first[1], '-(%d+)$')) or math.huge
  for _, field in ipairs(redis.call('HKEYS', tally)) do
    if tonumber(string.match(field, '%d+$')) < floor then redis.call('HDEL', tally, field) end
  end
end
local lifetime = redis.call('PTTL', log)
if lifetime > 0 then redis.call('PEXPIRE', tally, lifetime) end
return 0

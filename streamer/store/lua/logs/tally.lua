#!lua flags=allow-oom
-- Count the players who have read or acknowledged entries of an audience.
--
-- KEYS  tally, log
-- ARGV  retention in ms (unused), what ("read" or "acked"), increment, then pairs of offsets,
--       the first and the last of a run
-- Returns 0.
--
-- A run is split into blocks, whose sizes are powers of two and which begin at multiples of
-- their size: 2 log n of them for n entries. The number of an entry is the sum of those of
-- the blocks that have it. The tally expires with the log.
--
-- Commands  HDEL HGET HINCRBY HLEN HSET PEXPIRE PTTL XRANGE

local tally, log, what, by = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local BLOCK_MAX = 65536

-- What has left the log is not counted: the counts of those offsets were deleted already,
-- and nothing would delete them again.
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local floor = oldest and tonumber(string.match(oldest[1], '-(%d+)$')) or 0
for i = 4, #ARGV, 2 do
  local first, last = math.max(tonumber(ARGV[i]), floor), tonumber(ARGV[i + 1])
  while first <= last do
    local size = 1
    while size < BLOCK_MAX and first % (2 * size) == 0 and first + 2 * size - 1 <= last do
      size = 2 * size
    end
    local field = what .. ' ' .. string.format('%.0f', first)
    if size > 1 then field = field .. '+' .. string.format('%.0f', size) end
    redis.call('HINCRBY', tally, field, by)
    first = first + size
  end
end

-- Delete the counts of entries that have left the log, some at a time: those of the blocks
-- that end at an offset below the lowest one.
local PRUNED_FROM, PRUNED_MAX = 1000, 250
if redis.call('HLEN', tally) > PRUNED_FROM then
  local from = tonumber(redis.call('HGET', tally, 'floor') or 1)
  local upto, names = math.min(floor, from + PRUNED_MAX), {}
  for offset = from, upto - 1 do
    local size = 1
    repeat
      local block = string.format('%.0f', offset + 1 - size)
      if size > 1 then block = block .. '+' .. string.format('%.0f', size) end
      names[#names + 1] = 'read ' .. block
      names[#names + 1] = 'acked ' .. block
      size = 2 * size
    until (offset + 1) % size > 0 or size > BLOCK_MAX
  end
  if #names > 0 then
    redis.pcall('HDEL', tally, unpack(names))
    redis.call('HSET', tally, 'floor', string.format('%.0f', upto))
  end
end
local lifetime = redis.call('PTTL', log)
if lifetime > 0 then redis.call('PEXPIRE', tally, lifetime) end
return 0

-- Note that a client of the player's has everything of an audience up to an offset. Who
-- calls it has found the place in the audience's log.
--
-- KEYS  views
-- ARGV  retention ms, clock, name, the log's epoch, the offset
-- Gives the highest offset confirmed before, or where the player joined; -1 when this is
--       no news.

local views, name, offset = KEYS[1], ARGV[3], tonumber(ARGV[5])

local fields = redis.call('HMGET', views, 'in ' .. name, 'acked ' .. name)
if not fields[1] then return -1 end
local epoch, joined = string.match(fields[1], '^(%d+) %d+ (%d+)')
local before = tonumber(joined)
if epoch ~= ARGV[4] and epoch ~= '0' then before = 0 end
local acked_epoch, acked = string.match(fields[2] or '', '^(%d+) (%d+)$')
if acked_epoch == ARGV[4] then before = math.max(before, tonumber(acked)) end
if offset <= before then return -1 end
redis.call('HSET', views, 'acked ' .. name, ARGV[4] .. ' ' .. int(offset))
return before

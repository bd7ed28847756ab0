#!lua flags=allow-oom
-- Record that a client has all entries of an audience up to an offset. The caller has found
-- that entry in the audience's log.
--
-- KEYS  views
-- ARGV  retention in ms, clock, name of the audience, epoch of its log, offset
-- Returns the highest offset acknowledged before, or at which the player joined; -1 if this
-- offset is not higher.
--
-- Commands  HMGET HSET

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

#!lua flags=allow-oom
-- Record that a client has all entries up to a position of the log.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, epoch, time, offset, tag
-- Returns 1 if that was new, otherwise 0.
--
-- Commands  HGET HSET

local inbox, state, floor = open_inbox(1)
local epoch, at_us = tonumber(ARGV[3]), ARGV[4]
local offset, tag = tonumber(ARGV[5]), ARGV[6]
if not is_known_position(state, floor, inbox, epoch, at_us, offset, tag) then return 0 end
if offset <= tonumber(redis.call('HGET', inbox.state, 'acked') or 0) then return 0 end
redis.call('HSET', inbox.state, 'acked', int(offset))
return 1

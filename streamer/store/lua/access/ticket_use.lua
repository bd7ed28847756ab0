#!lua flags=allow-oom
-- Use a ticket, for the first time or to resume its stream.
--
-- KEYS  ticket
-- ARGV  whether a stream is resumed (0 or 1), lifetime of the ticket from now in ms
-- Returns the caller, the expiry of its token, and whether this was the first use (0 or 1);
-- nil if there is no such ticket, or it was used and no stream is resumed.
--
-- Commands  GET SET TIME

local kept = redis.call('GET', KEYS[1])
if not kept then return false end
local used, first, ends, caller = string.match(kept, '^(%d) (%d+) (%d+) (.*)$')
if used == '1' and ARGV[1] ~= '1' then return false end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end

local until_ms = math.min(tonumber(ends), now + tonumber(ARGV[2]))
kept = '1 ' .. first .. ' ' .. ends .. ' ' .. caller
redis.call('SET', KEYS[1], kept, 'PXAT', int(until_ms))
return {caller, ends, used == '1' and 0 or 1}

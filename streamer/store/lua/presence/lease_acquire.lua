#!lua flags=allow-oom
-- Acquire one of a player's leases for a connection.
--
-- KEYS  lease, views, state, log
-- ARGV  leases_max, lifetime of the key in ms, channel, node, connection, instance ("" for
--       none), name of everyone's log, position in it at which a new player joins ("" if
--       unknown), lifetime of the views in ms, whether the list of nodes is fresh (0 or 1),
--       the live nodes
-- Returns 1; 0 if all leases are taken; -1 if the list is not fresh, and a node that is not
-- in it matters: all leases are taken only if its leases count, or it has the connection to
-- take over from.
--
-- Leases of nodes that are not alive are void. A node acquires its first lease after its
-- first heartbeat, so a fresh list contains every node with leases; an older list may lack
-- a node that has just started. A client that names its instance takes over the lease of
-- its previous connection, to which this is announced.
--
-- A player that was never seen joins everyone's log here. Otherwise views.lua would find
-- that in a second step.
--
-- allow-oom: in a full store readers can still connect, at a few bytes each.
--
-- Commands  EXISTS HDEL HGETALL HSET PEXPIRE

local leases_max, lifetime, channel = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local node, connection, instance = ARGV[4], ARGV[5], ARGV[6]
local everyone, joined, views_lifetime = ARGV[7], ARGV[8], ARGV[9]
local fresh = ARGV[10] == '1'
local alive = {}
for i = 11, #ARGV do alive[ARGV[i]] = true end

local counted, unknown, replaced = 0, {}, {}
local leases = redis.call('HGETALL', KEYS[1])
for i = 1, #leases, 2 do
  local member = leases[i]
  if not alive[string.match(member, '^[^:]+')] then
    if not fresh and instance ~= '' and leases[i + 1] == instance then return -1 end
    unknown[#unknown + 1] = member
  elseif instance ~= '' and leases[i + 1] == instance then
    replaced[#replaced + 1] = member
  elseif member ~= node .. ':' .. connection then
    counted = counted + 1
  end
end

if counted >= leases_max then return 0 end
if not fresh and counted + #unknown >= leases_max then return -1 end
local void = fresh and unknown or {}
-- HSET is undone by HDEL and HDEL by HSET. This fails, and deletes nothing, if a HDEL that
-- follows the HSET would fail.
if #void + #replaced > 0 then redis.call('HDEL', KEYS[1], '') end
redis.call('HSET', KEYS[1], node .. ':' .. connection, instance)
redis.call('PEXPIRE', KEYS[1], lifetime)
for _, member in ipairs(void) do redis.call('HDEL', KEYS[1], member) end
for _, member in ipairs(replaced) do redis.call('HDEL', KEYS[1], member) end
if joined ~= '' and redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) == 0 then
  redis.call('HSET', KEYS[2], 'names', everyone, 'in ' .. everyone, joined)
  redis.call('PEXPIRE', KEYS[2], views_lifetime)
end
for _, member in ipairs(replaced) do
  publish(channel, 'replaced ' .. string.match(member, ':(.*)$'))
end
return with_refusal(1)

#!lua flags=allow-oom
-- Take one of a player's leases on listening.
--
-- KEYS  lease, views, state, log
-- ARGV  leases at most, lifetime of the key in ms, channel, node, connection, instance
--       ("" for none), the name of everybody's log, the place in it where a player that
--       was never seen begins ("" for not known), lifetime of the views in ms, whether
--       the list of nodes is fresh (0 or 1), then the nodes that are alive
-- Gives 1; or 0 when all are taken; or -1 when only leases of nodes that are not in the
-- list stand in the way, and the list is not fresh.
--
-- Leases of nodes that are not alive are void. A node takes its first lease after its
-- first heartbeat, so a fresh list has every node that holds one; an older list may lack
-- a node that has just come. A client that names its instance takes over the lease it
-- had, and the connection that held it is told.
--
-- A player that was never seen is one of everybody from here on, as `views` would find
-- out in a second step.
--
-- A full store takes it all the same: readers are there, and a few bytes more.

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
    unknown[#unknown + 1] = member
  elseif instance ~= '' and leases[i + 1] == instance then
    replaced[#replaced + 1] = member
  elseif member ~= node .. ':' .. connection then
    counted = counted + 1
  end
end

if counted >= leases_max then return 0 end
if not fresh and counted + #unknown >= leases_max then return -1 end
if fresh then
  for _, member in ipairs(unknown) do redis.call('HDEL', KEYS[1], member) end
end
for _, member in ipairs(replaced) do
  redis.call('HDEL', KEYS[1], member)
  redis.call('SPUBLISH', channel, 'replaced ' .. string.match(member, ':(.*)$'))
end
redis.call('HSET', KEYS[1], node .. ':' .. connection, instance)
redis.call('PEXPIRE', KEYS[1], lifetime)
if joined ~= '' and redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) == 0 then
  redis.call('HSET', KEYS[2], 'names', everyone, 'in ' .. everyone, joined)
  redis.call('PEXPIRE', KEYS[2], views_lifetime)
end
return 1

-- Announcing, for every script that does. Include before everything else.
--
-- A script announces after its last write, and a refusal changes nothing: what it announces
-- is stored, and the position check of every node finds it. The caller learns of the
-- refusal from the reply, counts it and goes on.
--
-- Commands  SPUBLISH

local unannounced = nil

local function publish(channel, message)
  local reply = redis.pcall('SPUBLISH', channel, message)
  if type(reply) == 'table' then unannounced = reply.err end
end

-- The reply of a script whose result is `result`.
local function with_refusal(result)
  if not unannounced then return result end
  return { 'UNANNOUNCED', unannounced, result }
end

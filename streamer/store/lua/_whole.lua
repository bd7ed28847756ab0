-- Makes a script whole: all of its writes or none. Include before what is to be whole.
--
-- The store has no rollback. If it refuses a command of a script, for example by an access
-- list or because a key has another type, the writes before it stay. From here on
-- `redis.call` records how to undo each write, and undoes them, last one first, when a
-- command is refused; then it raises that error as it always does. Not undone are expiries,
-- and the deletion of what has left a log or belonged to a lost one.
--
-- Commands  DEL EXISTS GET GETBIT HDEL HMGET HSET LPOP LPUSH LRANGE PTTL RPOP SADD SET
--           SETBIT SISMEMBER SREM XDEL ZADD ZREM ZSCORE

local server, undo = redis, {}

local function check(reply)
  if type(reply) ~= 'table' or not reply.err then return reply end
  for i = #undo, 1, -1 do server.pcall(unpack(undo[i])) end
  error(reply)
end

local function ask(...)
  return check(server.pcall(...))
end

-- Commands that give fields of a hash back their values, and delete those it does not have.
local function fields_back(key, names)
  local old, kept, added = ask('HMGET', key, unpack(names)), { 'HSET', key }, { 'HDEL', key }
  for i, name in ipairs(names) do
    if old[i] then
      kept[#kept + 1] = name
      kept[#kept + 1] = old[i]
    else
      added[#added + 1] = name
    end
  end
  return #kept > 2 and kept or nil, #added > 2 and added or nil
end

local function string_back(key)
  local old, lifetime = ask('GET', key), ask('PTTL', key)
  if not old then return { 'DEL', key } end
  if lifetime < 0 then return { 'SET', key, old } end
  return { 'SET', key, old, 'PX', string.format('%.0f', lifetime) }
end

local function member_back(key, member)
  local score = ask('ZSCORE', key, member)
  if score then return { 'ZADD', key, score, member } end
  return { 'ZREM', key, member }
end

-- One or two commands that undo a write, to be asked for before it. Most calls are reads,
-- for which there is nothing: they compare a few names and make no table.
local function reverse(command, key, one, two, ...)
  if command == 'HSET' then
    local given, names = { one, two, ... }, {}
    for i = 1, #given, 2 do names[#names + 1] = given[i] end
    return fields_back(key, names)
  elseif command == 'HSETNX' or command == 'HINCRBY' then
    return fields_back(key, { one })
  elseif command == 'HDEL' then
    return (fields_back(key, { one, two, ... }))
  elseif command == 'XADD' then
    return { 'XDEL', key, one }
  elseif command == 'SETBIT' then
    if ask('EXISTS', key) == 0 then return { 'DEL', key } end
    return { 'SETBIT', key, one, ask('GETBIT', key, one) }
  elseif command == 'SET' or (command == 'DEL' and not one) then
    return string_back(key)
  elseif command == 'ZADD' then
    return member_back(key, two)
  elseif command == 'ZREM' then
    return member_back(key, one)
  elseif command == 'SADD' and ask('SISMEMBER', key, one) == 0 then
    return { 'SREM', key, one }
  elseif command == 'SREM' and ask('SISMEMBER', key, one) == 1 then
    return { 'SADD', key, one }
  elseif command == 'RPUSH' then
    return { 'RPOP', key }
  elseif command == 'LPUSH' then
    return { 'LPOP', key }
  elseif command == 'LTRIM' and tonumber(one) > 0 then
    local back = { 'LPUSH', key }
    local removed = ask('LRANGE', key, 0, one - 1)
    for i = #removed, 1, -1 do back[#back + 1] = removed[i] end
    if #removed > 0 then return back end
  end
end

local redis = {
  pcall = server.pcall,
  error_reply = server.error_reply,
  call = function(...)
    local first, second = reverse(...)
    local reply = ask(...)
    if first then undo[#undo + 1] = first end
    if second then undo[#undo + 1] = second end
    return reply
  end,
}

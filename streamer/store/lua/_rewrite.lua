-- Writes a stream again with some of its items changed. Include after _whole.lua.
--
-- An item of a stream cannot be changed. A copy is made under another key of the same slot,
-- and takes the stream's place when it is complete; so a refused command changes nothing.
-- The copy has the ids, the last id and the lifetime of the stream, and exists only while
-- the script runs.
--
-- Commands  DEL PEXPIRE PTTL RENAME XADD XINFO XRANGE XSETID XTRIM

-- Rewrite `stream` under the key `copy`. `change` gets the id and the fields of each item,
-- and returns the fields that the copy gets. With `items_max` the oldest items over that many
-- are left out. O(items) and as much memory once more.
local function rewrite(stream, copy, change, items_max)
  local PORTION = 100
  local function careful_call(...)
    local reply = server.pcall(...)
    if type(reply) == 'table' and reply.err then
      server.pcall('DEL', copy)
      check(reply)
    end
    return reply
  end
  -- A refused deletion is known before there is anything to delete.
  careful_call('DEL', copy)
  local from = '-'
  repeat
    local items = careful_call('XRANGE', stream, from, '+', 'COUNT', PORTION)
    for _, item in ipairs(items) do
      careful_call('XADD', copy, item[1], unpack(change(item[1], item[2])))
    end
    if #items > 0 then from = '(' .. items[#items][1] end
  until #items < PORTION
  if items_max then careful_call('XTRIM', copy, 'MAXLEN', items_max) end
  -- The stream may have had later items, and gives their ids to no other.
  local info = careful_call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then careful_call('XSETID', copy, info[i + 1]) end
  end
  local lifetime = careful_call('PTTL', stream)
  if lifetime > 0 then careful_call('PEXPIRE', copy, lifetime) end
  careful_call('RENAME', copy, stream)
end

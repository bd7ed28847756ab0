-- The fast path of append.lua, for nearly all appends, in half the time. Included after
-- _announce.lua and before everything else. It requires that no entry of the batch can end or
-- is for one device, the player has muted nothing, the log exists and its keys were renewed
-- this hour, and the request is no repetition. Otherwise it does nothing, and the script
-- continues below.
--
-- It writes exactly what `append` and `announce` of _append.lua write; a test compares
-- both. KEYS, ARGV and the reply are those of append.lua.
--
-- Commands  DEL EXISTS GET HMGET HSET SET TIME XADD XDEL XTRIM

if ARGV[9] == '3' or string.sub(ARGV[9], 1, 2) == '3 ' then
  local digest = ARGV[6]
  local record = digest ~= '' and redis.call('GET', KEYS[8])
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'at_us', 'tag')
  if state[1] and not record and redis.call('EXISTS', KEYS[7]) == 0 then
    local epoch, head, before_us = state[1], tonumber(state[2]), tonumber(state[3])
    local now_us = tonumber(ARGV[2])
    if now_us == 0 then
      local time = redis.call('TIME')
      now_us = time[1] * 1000000 + time[2]
    end
    if now_us < before_us then now_us = before_us end
    local last, hour_us = head + (#ARGV - 9) / 3, 3600000000
    if now_us - before_us < hour_us - before_us % hour_us and last <= 4294967295 then
      local channel, inline_max, tags = ARGV[8], tonumber(ARGV[5]), {}
      local at_us = string.format('%.0f', now_us)
      local at = epoch .. ' ' .. at_us .. ' '
      for i = 10, #ARGV, 3 do tags[#tags + 1] = ARGV[i] end
      local answer = at .. head + 1 .. ' ' .. table.concat(tags, ',')

      -- All of these writes or none, as _whole.lua has it. The first has nothing to undo.
      -- An undone append leaves the stream with a later id than the log. If the clock was
      -- set back since, the general append has to choose a later time.
      local added, is_before_last = 0, false
      local function whole(reply)
        if type(reply) ~= 'table' or not reply.err then return end
        for i = 1, added do redis.pcall('XDEL', KEYS[2], at_us .. '-' .. head + i) end
        if digest ~= '' then redis.pcall('DEL', KEYS[8]) end
        redis.pcall('HSET', KEYS[1], 'head', state[2], 'at_us', state[3], 'tag', state[4])
        is_before_last = added == 0 and string.find(reply.err, 'equal or smaller')
        if not is_before_last then error(reply) end
      end
      redis.call('HSET', KEYS[1], 'head', last, 'at_us', at_us, 'tag', tags[#tags])
      if digest ~= '' then
        whole(redis.pcall('SET', KEYS[8], digest .. ' ' .. answer, 'PX', ARGV[7]))
      end
      for i, tag in ipairs(tags) do
        whole(redis.pcall(
          'XADD', KEYS[2], at_us .. '-' .. head + i, 't', tag, 'n', ARGV[8 + 3 * i]))
        if is_before_last then break end
        added = i
      end
      if not is_before_last then
        if last > tonumber(ARGV[3]) then
          whole(redis.pcall('XTRIM', KEYS[2], 'MAXLEN', ARGV[3]))
        end
        local kind = ARGV[9] == '3' and 'entry ' or 'with ' .. string.sub(ARGV[9], 3) .. ' '
        for i, tag in ipairs(tags) do
          local fragment = ARGV[8 + 3 * i]
          if #fragment > inline_max then fragment = '' end
          publish(channel, kind .. at .. head + i .. ' ' .. tag .. ' ' .. fragment)
        end
        return with_refusal('0 ' .. answer)
      end
    end
  end
end

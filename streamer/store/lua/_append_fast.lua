-- The way of nearly all appends, in front of all that the others are made of: it takes
-- half of their time. Nothing in the batch can end, nor is for one device; the player has
-- muted nothing; the log is there, and was tidied this hour; the request is no repetition.
-- Where any of that is not so, nothing is done here, and the script goes on below.
--
-- What it writes is what `append` and `announce` of _append.lua write, which a test holds
-- it to. KEYS, ARGV and the answer are those of append.lua.

if ARGV[9] == '3' then
  local digest = ARGV[6]
  local record = digest ~= '' and redis.call('GET', KEYS[8])
  local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'ms')
  if state[1] and not record and redis.call('EXISTS', KEYS[7]) == 0 then
    local epoch, head, before_ms = state[1], tonumber(state[2]), tonumber(state[3])
    local ms = tonumber(ARGV[2])
    if ms == 0 then
      local time = redis.call('TIME')
      ms = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    if ms < before_ms then ms = before_ms end
    local last = head + (#ARGV - 9) / 3
    if ms - before_ms < 3600000 - before_ms % 3600000 and last <= 4294967295 then
      local channel, inline_max, tags = ARGV[8], tonumber(ARGV[5]), {}
      local at = epoch .. ' ' .. ms .. ' '
      local answer = at .. head + 1 .. ' '
      for i = 10, #ARGV, 3 do
        local tag, fragment = ARGV[i], ARGV[i + 1]
        head = head + 1
        redis.call('XADD', KEYS[2], ms .. '-' .. head, 't', tag, 'n', fragment)
        if #fragment > inline_max then fragment = '' end
        redis.call(
          'SPUBLISH', channel, 'entry ' .. at .. head .. ' ' .. tag .. ' ' .. fragment)
        tags[#tags + 1] = tag
      end
      if head > tonumber(ARGV[3]) then redis.call('XTRIM', KEYS[2], 'MAXLEN', ARGV[3]) end
      redis.call('HSET', KEYS[1], 'head', head, 'ms', ms, 'tag', tags[#tags])
      answer = answer .. table.concat(tags, ',')
      if digest ~= '' then
        redis.call('SET', KEYS[8], digest .. ' ' .. answer, 'PX', ARGV[7])
      end
      return '0 ' .. answer
    end
  end
end

-- What a player sees of audiences, behind _inbox.lua. All of a player's views are one
-- hash; with <name> for an audience's name, which holds no blank, its fields are
--
--   names           the names of the audiences joined, with a blank between
--   in <name>       the place at joining: epoch ms offset tag
--   muted <name>    1 while the player wants nothing of it
--   base <name>     every offset below it is read; a multiple of 8
--   done <name>     bitmap from base on, as SETBIT would write it: read or deleted
--   deleted <name>  offsets the player took out, with a blank between
--   read <name> <o> ms at which offset o was marked
--   upto <name>     "o:ms" of marks of all up to o, with a blank between
--   acked <name>    epoch and the highest offset that a client has confirmed

local function list_has(list, name)
  return string.find(' ' .. list .. ' ', ' ' .. name .. ' ', 1, true) ~= nil
end

local function list_without(list, name)
  local kept = {}
  for word in string.gmatch(list, '%S+') do
    if word ~= name then kept[#kept + 1] = word end
  end
  return table.concat(kept, ' ')
end

-- A player's views live on while there is a topic in them; that the player is one of
-- everybody is known again by looking.
local function keep_alive(views, names)
  if string.find(' ' .. names, ' t', 1, true) then
    redis.call('PERSIST', views)
  else
    redis.call('PEXPIRE', views, int(2 * RETENTION_MS + 2 * 86400000))
  end
end

-- Note that a page of the player's shows something else.
local function count_change(state)
  redis.call('HINCRBY', state, 'marks', 1)
  if redis.call('PTTL', state) < 0 then
    redis.call('PEXPIRE', state, int(2 * RETENTION_MS + 2 * 86400000))
  end
end

-- Tell the player's streams that their audiences are to be looked at again.
local function announce_audiences(state, channel)
  count_change(state)
  redis.call('SPUBLISH', channel, 'audiences')
end

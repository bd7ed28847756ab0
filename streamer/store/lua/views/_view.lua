-- A player's views of audiences. Include after _announce.lua and _inbox.lua. All views of a player are one
-- hash. <name> is the name of an audience, which contains no space. Lists are separated by
-- spaces. The fields are
--
--   names           names of the joined audiences
--   in <name>       position at joining: epoch at_us offset tag
--   muted <name>    1 while the player has muted the audience
--   base <name>     every lower offset is done; a multiple of 8
--   done <name>     bitmap from base on, in the format of SETBIT: read or deleted
--   deleted <name>  offsets that the player has deleted
--   read <name> <o> time in ms at which offset o was marked as read
--   upto <name>     "o:ms" for each mark of all entries up to o
--   floor <name>    lower offsets have no time of their own any more
--   acked <name>    epoch and the highest offset that a client has acknowledged
--
-- Commands  HINCRBY PERSIST PEXPIRE PTTL

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

-- Views with a topic do not expire. The view of everyone's log alone may, because the next
-- read creates it again.
local function keep_alive(views, names)
  if string.find(' ' .. names, ' t', 1, true) then
    redis.call('PERSIST', views)
  else
    redis.call('PEXPIRE', views, int(2 * RETENTION_MS + 2 * 86400000))
  end
end

-- Change the version of the player's pages.
local function count_change(state)
  redis.call('HINCRBY', state, 'marks', 1)
  if redis.call('PTTL', state) < 0 then
    redis.call('PEXPIRE', state, int(2 * RETENTION_MS + 2 * 86400000))
  end
end

-- Announce to the player's streams that the audiences have changed.
local function announce_audiences(state, channel)
  count_change(state)
  publish(channel, 'audiences')
end

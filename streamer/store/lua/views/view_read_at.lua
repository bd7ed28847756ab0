-- When a player marked entries of an audience as read.
--
-- KEYS  views
-- ARGV  name of the audience, offsets
-- Returns the time of each in ms, 0 if unknown.
--
-- Commands  HGET

local views, name = KEYS[1], ARGV[1]

local ranges = {}
for offset, ms in string.gmatch(redis.call('HGET', views, 'upto ' .. name) or '',
  '(%d+):(%d+)') do
  ranges[#ranges + 1] = { tonumber(offset), tonumber(ms) }
end

local times = {}
for i = 2, #ARGV do
  local own = redis.call('HGET', views, 'read ' .. name .. ' ' .. ARGV[i])
  local ms = own and tonumber(own) or 0
  if not own then
    -- Each range is longer than the one before it.
    for _, range in ipairs(ranges) do
      if range[1] >= tonumber(ARGV[i]) then
        ms = range[2]
        break
      end
    end
  end
  times[i - 1] = ms
end
return times

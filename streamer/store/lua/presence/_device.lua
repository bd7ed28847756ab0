-- The device of a notification that is for the device used last. Include after _inbox.lua.
--
-- Commands  HEXISTS HGETALL

-- The device used last among those with an open connection, or nil, which means every
-- device. The live nodes are the arguments from `first` to `last`.
local function latest_device(devices, lease, first, last)
  local alive = {}
  for i = first, last do alive[ARGV[i]] = true end
  local latest, used = nil, 0
  local items = redis.call('HGETALL', devices)
  for i = 1, #items, 2 do
    local device, ms = string.match(items[i + 1], '^(%S+) (%d+)$')
    if tonumber(ms) >= used and alive[string.match(items[i], '^[^:]+')]
      and redis.call('HEXISTS', lease, items[i]) == 1 then
      latest, used = device, tonumber(ms)
    end
  end
  return latest
end

-- Store the recipients of a schedule in one bucket, once.
--
-- KEYS  recipients; optionally cards, to take the recipients from
-- ARGV  lifetime in ms; without cards, the recipients
-- Returns the number of recipients, also if they were stored before.
--
-- The last item of the list is "\0" and their number, which is no player's name. It stays
-- when all are served, so that a second call does not serve them again.
--
-- Commands  HVALS LINDEX PEXPIRE RPUSH

local recipients = KEYS[1]
local last = redis.call('LINDEX', recipients, -1)
if last then return tonumber(string.sub(last, 2)) end

local count = 0
if KEYS[2] then
  -- A card is "<status> <version> <player>". A player with several gets one notification.
  local cards, seen = redis.call('HVALS', KEYS[2]), {}
  for _, card in ipairs(cards) do
    local player = string.match(card, '^active %d+ (.*)$')
    if player and not seen[player] then
      seen[player] = true
      redis.call('RPUSH', recipients, player)
      count = count + 1
    end
  end
else
  count = #ARGV - 1
  for i = 2, #ARGV do redis.call('RPUSH', recipients, ARGV[i]) end
end
redis.call('RPUSH', recipients, '\0' .. string.format('%d', count))
redis.call('PEXPIRE', recipients, ARGV[1])
return count

-- Copy records of cards to a player's bucket, where sending reads them. An older version
-- never replaces a newer one, so copies may arrive late, twice and in any order.
--
-- KEYS  cards
-- ARGV  id, version and value of each; the value is "<status> <version> <player>", or
--       "moved <version>" if the card has left this bucket
-- Returns how many were stored.
--
-- Commands  HGET HSET

local cards, taken = KEYS[1], 0
for i = 1, #ARGV, 3 do
  local id, version = ARGV[i], tonumber(ARGV[i + 1])
  local before = redis.call('HGET', cards, id)
  local seen = before and tonumber(string.match(before, '^%S+ (%d+)')) or 0
  if version >= seen then
    redis.call('HSET', cards, id, ARGV[i + 2])
    taken = taken + 1
  end
end
return taken

-- Write the authoritative records of cards of a campaign.
--
-- KEYS  card
-- ARGV  id, status, player and the player's bucket of each; with an empty player the card
--       keeps its player
-- Returns the new record of each, "" if a card without a player does not exist.
--
-- A record is "<status> <version> <buckets> <player>"; the player may be followed by
-- \1 and another spelling of its name. The buckets, separated by commas,
-- are all that the card was ever in. card_copy updates the copies in all of them; if a
-- node crashes before that, the next write of the card does it.
--
-- Commands  HGET HSET

local cards = KEYS[1]
local written = {}
for i = 1, #ARGV, 4 do
  local id, status, player, bucket = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local version, buckets = 0, ''
  local before = redis.call('HGET', cards, id)
  if before then
    local _, seen, known, holder = string.match(before, '^(%S+) (%d+) (%S+) (.*)$')
    version, buckets = tonumber(seen), known
    if player == '' then player = holder end
  end
  if player == '' then
    written[#written + 1] = ''
  else
    if buckets == '' then
      buckets = bucket
    elseif bucket ~= ''
      and not string.find(',' .. buckets .. ',', ',' .. bucket .. ',', 1, true) then
      buckets = buckets .. ',' .. bucket
    end
    local record = table.concat(
      { status, string.format('%d', version + 1), buckets, player }, ' ')
    redis.call('HSET', cards, id, record)
    written[#written + 1] = record
  end
end
return written

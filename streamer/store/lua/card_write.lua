-- Write cards of a campaign where their ids say, which is what holds.
--
-- KEYS  card
-- ARGV  then id, status, player and the player's bucket of each; with an empty player
--       the card keeps the one it has
-- Gives for each its new record, "" where there is none to keep the player of.
--
-- A record is "<status> <version> <buckets> <player>". The buckets, with commas, are all
-- that the card was ever in: whoever copies the record there tells the older ones that it
-- has left, and who dies before that leaves behind what the next one needs to do it.

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
    elseif bucket ~= '' and not string.find(',' .. buckets .. ',', ',' .. bucket .. ',', 1, true) then
      buckets = buckets .. ',' .. bucket
    end
    local record = table.concat(
      { status, string.format('%d', version + 1), buckets, player }, ' ')
    redis.call('HSET', cards, id, record)
    written[#written + 1] = record
  end
end
return written

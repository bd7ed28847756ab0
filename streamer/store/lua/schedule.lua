-- Enter a schedule into the timetable.
--
-- KEYS  record, due, apps with something due, then the indexes it is listed in, then the
--       slots it takes one of if there is a limit
-- ARGV  retention ms (not used), clock, member (app:id), id, due ms, limit on slots (0:
--       none), lifetime of the indexes in ms, then field and value of the record
-- Gives 1 and its time; 0 and 0 when it was there before; -1 and 0 when all slots are
-- taken.

local record, due, apps = KEYS[1], KEYS[2], KEYS[3]
local member, id, due_ms = ARGV[3], ARGV[4], ARGV[5]
local slots_max, index_ms = tonumber(ARGV[6]), ARGV[7]
local last_index = slots_max > 0 and #KEYS - 1 or #KEYS

if redis.call('EXISTS', record) == 1 then return { 0, '0' } end
if slots_max > 0 then
  if redis.call('SCARD', KEYS[#KEYS]) >= slots_max then return { -1, '0' } end
  redis.call('SADD', KEYS[#KEYS], id)
end

redis.call('HSET', record, 'state', 'pending', 'due', due_ms, 'created', int(NOW_MS),
  unpack(ARGV, 8))
for i = 4, last_index do
  -- Nothing is kept longer than an index; what is older is the name of nothing.
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', int(NOW_MS - tonumber(index_ms)))
  redis.call('ZADD', KEYS[i], int(NOW_MS), id)
  redis.call('PEXPIRE', KEYS[i], index_ms)
end
add_due(due, apps, member, due_ms)
return { 1, int(NOW_MS) }

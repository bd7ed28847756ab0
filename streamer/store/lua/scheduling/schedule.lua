-- Add a schedule to the timetable.
--
-- KEYS  record, due, apps with schedules due, the indexes that list it; campaign slots, if
--       there is a limit
-- ARGV  retention in ms (unused), clock, member (app:id), id, due time in ms, number of slots
--       (0: no limit), lifetime of the indexes in ms, channel of notices, fields and values
--       of the record
-- Returns 1 and the creation time; 0 and 0 if it exists; -1 and 0 if all slots are taken.
--
-- Commands  EXISTS HSET PEXPIRE SADD SCARD ZADD ZREMRANGEBYSCORE

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
  unpack(ARGV, 9))
for i = 4, last_index do
  -- No record lives longer than an index, so older items refer to nothing.
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', int(NOW_MS - tonumber(index_ms)))
  redis.call('ZADD', KEYS[i], int(NOW_MS), id)
  redis.call('PEXPIRE', KEYS[i], index_ms)
end
add_due(due, apps, member, due_ms)
notice_due(apps, ARGV[8], due_ms)
return with_refusal({ 1, int(NOW_MS) })

#!lua flags=allow-oom
-- Delete a schedule, sent or not, with everything in its slot that refers to it.
--
-- KEYS  record, due, apps with schedules due, sending, campaign slots, index of schedules,
--       index of the campaign's sends, paused
-- ARGV  retention in ms (unused), clock, member, id
-- Returns 1 if there was such a schedule, otherwise 0.
--
-- Commands  DEL SREM ZREM ZSCORE

local record, due, apps, sending, slots = unpack(KEYS, 1, 5)
local member, id = ARGV[3], ARGV[4]

if redis.call('ZSCORE', due, member) then remove_due(due, apps, member) end
redis.call('SREM', slots, id)
for _, index in ipairs({ KEYS[6], KEYS[7] }) do redis.call('ZREM', index, id) end
redis.call('ZREM', sending, member)
redis.call('ZREM', KEYS[8], member)
-- Last, and with a second name: what is one key has to be text to be undone.
return redis.call('DEL', record, record)

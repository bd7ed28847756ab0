#!lua flags=allow-oom
-- Remove the text from the record of a schedule that was sent or cancelled.
--
-- KEYS  record
-- ARGV  the fragment that remains
-- Returns the state, "" if there is no such schedule. In any other state nothing changes.
--
-- Commands  HGET HSET

local record = KEYS[1]
local state = redis.call('HGET', record, 'state') or ''
if state == 'sent' or state == 'cancelled' then
  redis.call('HSET', record, 'fragment', ARGV[1], 'collapse', '')
end
return state

#!lua flags=allow-oom
-- Mark entries as unread, atomically, and announce it. Idempotent. Entries that have ended
-- or are not in the log are ignored.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, channel, body of the announcement, unread entries in other
--       logs of the player, whether entries were changed there (0 or 1); then time, offset,
--       tag of each
-- Returns unread entries in all logs, entries changed in this one, version of the marks.
--
-- Commands  GET GETBIT HDEL HSET SET SETBIT ZSCORE

local channel, body, elsewhere = ARGV[3], ARGV[4], tonumber(ARGV[5])
local force, FIRST = ARGV[6] == '1', 7

local inbox, state, floor = open_inbox(1)

-- Let the bitmap begin at the multiple of 8 at or below `offset`. Offsets below the old base
-- were done without a bit, and get one.
local function lower_base(offset)
  local base = offset - offset % 8
  if base >= state.base then return end
  local bits = redis.call('GET', inbox.done) or ''
  redis.call(
    'SET', inbox.done, string.rep('\255', (state.base - base) / 8) .. bits, 'KEEPTTL')
  state.base = base
  redis.call('HSET', inbox.state, 'base', int(base))
end

local function mark_one_unread(at_us, offset, tag)
  local number = tonumber(offset)
  if number < floor or number > state.head then return false end
  if not item_at(inbox, at_us, offset, tag) then return false end
  if state.ended and is_ended(redis.call('ZSCORE', inbox.ends, offset)) then return false end
  lower_base(number)
  local bit = int(number - state.base)
  if redis.call('GETBIT', inbox.done, bit) == 0 then return false end
  redis.call('SETBIT', inbox.done, bit, 0)
  redis.call('HDEL', inbox.reads, offset)
  return true
end

local count = 0
for i = FIRST, #ARGV, 3 do
  if mark_one_unread(ARGV[i], ARGV[i + 1], ARGV[i + 2]) then count = count + 1 end
end

local after = count_unread(inbox, state, floor)
if count > 0 or force then
  announce_marks(inbox, state, channel, body)
end
return with_refusal({ after + elsewhere, count, state.marks })

-- Changing read marks. Include after _announce.lua and _inbox.lua.
--
-- Commands  HDEL HGET HINCRBY HLEN HSET PEXPIRE PTTL

-- Delete the marks of entries that have left the log, at most TRIMMED_MAX at a time.
local TRIMMED_MAX, TRIMMED_BELOW_MAX = 1000, 20000
local function trim_reads(inbox, state, floor)
  if redis.call('HLEN', inbox.reads) <= state.head - floor + 1 + GONE_MAX then return end
  local from = tonumber(redis.call('HGET', inbox.reads, 'floor') or 1)
  from = math.max(from, floor - TRIMMED_BELOW_MAX)
  local names, upto = {}, math.min(floor, from + TRIMMED_MAX)
  for offset = from, upto - 1 do names[#names + 1] = int(offset) end
  if #names == 0 then return end
  redis.pcall('HDEL', inbox.reads, unpack(names))
  redis.pcall('HSET', inbox.reads, 'floor', int(upto))
end

-- Count a change of marks and announce it.
local function announce_marks(inbox, state, channel, body)
  state.marks = redis.call('HINCRBY', inbox.state, 'marks', 1)
  if redis.call('PTTL', inbox.state) < 0 then
    -- The player has no log; its state expires as that of a log would.
    redis.call('PEXPIRE', inbox.state, int(2 * RETENTION_MS + 2 * 86400000))
  end
  expire_with_log(inbox)
  publish(channel, table.concat({ 'read', int(state.marks), body }, ' '))
end

-- Whether a position is one of this log: its epoch or none, an offset in the log, and the
-- time and tag of the entry there, both text.
local function is_known_position(state, floor, inbox, epoch, at_us, offset, tag)
  if epoch ~= 0 and epoch ~= state.epoch then return false end
  if offset > state.head or offset < floor then return false end
  return item_at(inbox, at_us, int(offset), tag) ~= nil
end

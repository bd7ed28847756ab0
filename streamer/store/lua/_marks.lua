-- What changing read marks is made of, behind _inbox.lua.

-- Drop marks of entries that are gone.
local function trim_reads(inbox, state, floor)
  if redis.call('HLEN', inbox.reads) <= state.head - floor + 1 + GONE_MAX then return end
  for _, name in ipairs(redis.call('HKEYS', inbox.reads)) do
    if tonumber(string.match(name, '%d+')) < floor then
      redis.call('HDEL', inbox.reads, name)
    end
  end
end

-- Note that marks have changed and tell who is listening: of `count` unread in all.
local function announce_marks(inbox, state, channel, count, body)
  state.marks = redis.call('HINCRBY', inbox.state, 'marks', 1)
  if redis.call('PTTL', inbox.state) < 0 then
    -- Of a player whose log is empty; it goes on as the log's state would.
    redis.call('PEXPIRE', inbox.state, int(2 * RETENTION_MS + 2 * 86400000))
  end
  expire_with_log(inbox)
  redis.call('SPUBLISH', channel,
    table.concat({ 'read', int(state.marks), int(count), body }, ' '))
end

-- A position is believed under the rules of read_after: same epoch, not beyond the
-- head, and the tag where the entry is still there to compare.
local function is_known_position(state, floor, inbox, epoch, ms, offset, tag)
  if epoch ~= 0 and epoch ~= state.epoch then return false end
  if offset > state.head or offset < floor then return false end
  return item_at(inbox, int(ms), int(offset), tag) ~= nil
end

-- Mark entries as read, atomically, and announce it. Idempotent; what is not in the log
-- is ignored.
--
-- KEYS  state, log, done, reads
-- ARGV  retention ms, clock, channel, announcement body, then
--       "ids" and time, offset, tag of each; or "up_to" and epoch, time, offset, tag; or
--       "all"
-- Gives unread, how many were newly marked, marks.

local channel, body, mode = ARGV[3], ARGV[4], ARGV[5]

local inbox = inbox_at(1)
local state = read_state(inbox)
local floor = floor_offset(inbox, state)
local before = unread(inbox, state, floor)

-- Let the bitmap begin at the multiple of 8 at or below `offset`; all below is done.
local function rebase(offset)
  local base = offset - offset % 8
  if base <= state.base then return end
  local kept = redis.call('GETRANGE', inbox.done, int((base - state.base) / 8), -1)
  local lifetime = redis.call('PTTL', inbox.done)
  if kept == '' then
    redis.call('DEL', inbox.done)
  else
    redis.call('SET', inbox.done, kept)
    if lifetime > 0 then redis.call('PEXPIRE', inbox.done, lifetime) end
  end
  state.base = base
  redis.call('HSET', inbox.state, 'base', int(base))
end

local function mark_up_to(offset)
  rebase(offset + 1)
  for done = math.max(state.base, 1), offset do
    redis.call('SETBIT', inbox.done, int(done - state.base), 1)
  end
  -- A mark that reached nothing is not kept: so a later range is always a longer one.
  if unread(inbox, state, floor) < before then
    redis.call('HSETNX', inbox.reads, '<=' .. int(offset), int(NOW_MS))
  end
end

local function mark_one(ms, offset, tag)
  local number = tonumber(offset)
  if number < math.max(floor, state.base) or number > state.head then return end
  if not item_at(inbox, ms, offset, tag) then return end
  if redis.call('SETBIT', inbox.done, int(number - state.base), 1) == 0 then
    redis.call('HSET', inbox.reads, offset, int(NOW_MS))
  end
end

-- A position is believed under the rules of read_after: same epoch, not beyond the
-- head, and the tag where the entry is still there to compare.
local function good(epoch, ms, offset, tag)
  if epoch ~= 0 and epoch ~= state.epoch then return false end
  if offset > state.head or offset < floor then return false end
  return item_at(inbox, int(ms), int(offset), tag) ~= nil
end

-- Marks of entries that are gone. A thousand more than are kept pile up before the hash
-- is walked, so that the walk costs nothing per mark.
local function forget_gone()
  if redis.call('HLEN', inbox.reads) <= state.head - floor + 1 + 1000 then return end
  local names = redis.call('HKEYS', inbox.reads)
  for _, name in ipairs(names) do
    if tonumber(string.match(name, '%d+')) < floor then redis.call('HDEL', inbox.reads, name) end
  end
end

if before > 0 then
  if floor - state.base >= 8192 then rebase(floor) end
  if mode == 'ids' then
    for i = 6, #ARGV, 3 do mark_one(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  elseif mode == 'all' then
    mark_up_to(state.head)
  elseif good(tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]) then
    mark_up_to(tonumber(ARGV[8]))
  end
end

local after = unread(inbox, state, floor)
if after < before then
  forget_gone()
  state.marks = redis.call('HINCRBY', inbox.state, 'marks', 1)
  local lifetime = redis.call('PTTL', inbox.log)
  if lifetime > 0 then
    redis.call('PEXPIRE', inbox.done, lifetime)
    redis.call('PEXPIRE', inbox.reads, lifetime)
  end
  redis.call('SPUBLISH', channel,
    table.concat({ 'read', int(state.marks), int(after), body }, ' '))
end
return { after, before - after, state.marks }

-- Shared by all scripts that work on a log. Their first two arguments are the retention in
-- ms and the caller's clock in microseconds (0: the store's own; tests pass one). A log is
-- six adjacent keys, see `store.keys`. Offsets, times and tags are below 2^53, so a Lua
-- number holds them. The time of an entry is in microseconds; what names it ends in `_us`.
-- All other times are in ms.
--
-- An entry has *ended* when it has expired, was withdrawn or was replaced. An offset is
-- *done* when its entry was read or has ended: one bit in the bitmap `done`.
--
-- Commands  BITCOUNT DEL GETRANGE HDEL HMGET HSET PEXPIRE PTTL SET SETBIT TIME XRANGE XTRIM
--           ZADD ZMSCORE ZRANGEBYSCORE ZREM

local RETENTION_MS = tonumber(ARGV[1])
local RETENTION_US = RETENTION_MS * 1000

-- Scores in `ends`. From COMING on, a score is the time in ms at which the entry will
-- expire. Once expired, it is kept as its negative, so that a clock that is set back
-- revives nothing.
local WITHDRAWN, REPLACED, CONTROL, COMING = 1, 2, 3, 9

-- The bitmap `done` begins at most this far below the oldest entry.
local BASE_BELOW_MAX = 8192

-- Records of entries that have left the log are deleted when this many have collected,
-- so that the search for them costs next to nothing per entry.
local GONE_MAX = 1000

local function clock_us()
  local given = tonumber(ARGV[2])
  if given > 0 then return given end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local NOW_US = clock_us()
local NOW_MS = math.floor(NOW_US / 1000)

-- An integer as text. Lua itself writes a time as 1.79e+15, which XADD refuses and any
-- other command would store.
local function int(number)
  return string.format('%.0f', number)
end

-- The two numbers of a stream id "<at_us>-<offset>".
local function split_id(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

-- The log whose keys begin at KEYS[i].
local function inbox_at(i)
  return { state = KEYS[i], log = KEYS[i + 1], done = KEYS[i + 2], reads = KEYS[i + 3],
    ends = KEYS[i + 4], collapse = KEYS[i + 5] }
end

-- The state of a log. `ended` is nil until the log has had an entry that can end. Until
-- then the keys `ends` and `collapse` do not exist, and no entry has to be checked.
local function read_state(inbox)
  local f = redis.call('HMGET', inbox.state, 'epoch', 'head', 'at_us', 'tag', 'base',
    'marks', 'ended', 'ends_at', 'range')
  return {
    epoch = f[1] and tonumber(f[1]) or 0,
    head = tonumber(f[2] or 0),
    at_us = tonumber(f[3] or 0),
    tag = f[4] or '0',
    base = tonumber(f[5] or 0),
    marks = tonumber(f[6] or 0),
    ended = f[7] and tonumber(f[7]),
    ends_at = f[8] and tonumber(f[8]),
    range = tonumber(f[9] or 0),
  }
end

-- Trim entries older than the retention; return the lowest offset in the log, head + 1 if
-- it is empty. O(1) if nothing is too old, because only the first item is read.
local function floor_offset(inbox, state)
  local first = redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1]
  if not first then return state.head + 1 end
  local at_us, offset = split_id(first[1])
  if at_us >= NOW_US - RETENTION_US then return offset end
  redis.call('XTRIM', inbox.log, 'MINID', int(NOW_US - RETENTION_US))
  first = redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1]
  if not first then return state.head + 1 end
  at_us, offset = split_id(first[1])
  return offset
end

-- Let the marks expire with the log.
local function expire_with_log(inbox)
  local lifetime = redis.call('PTTL', inbox.log)
  if lifetime <= 0 then return end
  redis.call('PEXPIRE', inbox.done, lifetime)
  redis.call('PEXPIRE', inbox.reads, lifetime)
end

-- Let the bitmap begin at the multiple of 8 at or below `offset`; lower offsets are done.
local function rebase(inbox, state, offset)
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

-- Set the bit of an offset; return whether it was set before.
local function set_done(inbox, state, offset)
  if offset < state.base then return true end
  return redis.call('SETBIT', inbox.done, int(offset - state.base), 1) == 1
end

-- End an entry. If it was read before, its score is half a unit further from 0.
local function end_entry(inbox, state, offset, score)
  if set_done(inbox, state, offset) then score = score + (score < 0 and -0.5 or 0.5) end
  redis.call('ZADD', inbox.ends, string.format('%.1f', score), int(offset))
end

local function is_ended(score)
  return score and tonumber(score) < COMING
end

-- End the entries that have expired. O(1) if there are none, O(log n) each.
local function end_expired(inbox, state, floor)
  if not state.ends_at or state.ends_at > NOW_MS then return end
  -- A full store allows HDEL, and after that first write every other write of a script. It
  -- deletes nothing, so that there is nothing to undo.
  redis.call('HDEL', inbox.state, 'none')
  if floor - state.base >= BASE_BELOW_MAX then rebase(inbox, state, floor) end
  local due = redis.call('ZRANGEBYSCORE', inbox.ends, COMING, int(NOW_MS), 'WITHSCORES')
  for i = 1, #due, 2 do
    local offset = tonumber(due[i])
    if offset >= floor then
      end_entry(inbox, state, offset, -tonumber(due[i + 1]))
      state.ended = state.ended + 1
    else
      redis.pcall('ZREM', inbox.ends, due[i])
    end
  end
  expire_with_log(inbox)
  local following = redis.call(
    'ZRANGEBYSCORE', inbox.ends, COMING, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  state.ends_at = following[2] and tonumber(following[2])
  if state.ends_at then
    redis.call('HSET', inbox.state, 'ended', int(state.ended), 'ends_at', int(state.ends_at))
  else
    redis.call('HSET', inbox.state, 'ended', int(state.ended))
    redis.call('HDEL', inbox.state, 'ends_at')
  end
end

-- Open the log whose keys begin at KEYS[i]: trim old entries and end expired ones. Every
-- script that reads a log begins with this. Returns the log, its state and its lowest
-- offset.
local function open_inbox(i)
  local inbox = inbox_at(i)
  local state = read_state(inbox)
  local floor = floor_offset(inbox, state)
  end_expired(inbox, state, floor)
  return inbox, state, floor
end

-- The number of entries in the log, up to the offset `upto` if it is given, that are not
-- done. O(kept / 8) bytes, at most 1.3 KB.
local function count_unread(inbox, state, floor, upto)
  local from, last = math.max(floor, state.base), math.min(upto or state.head, state.head)
  if from > last then return 0 end
  local done = redis.call(
    'BITCOUNT', inbox.done, int(from - state.base), int(last - state.base), 'BIT')
  return last - from + 1 - done
end

-- The item with that id and tag, or nil. All three are text.
local function item_at(inbox, at_us, offset, tag)
  local id = at_us .. '-' .. offset
  local item = redis.call('XRANGE', inbox.log, id, id)[1]
  if item and item[2][2] == tag then return item end
  return nil
end

-- An optional field of an item: 'd', 'r' or 'w'.
local function field(item, name)
  local fields = item[2]
  for i = 5, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

-- The set of those of `offsets` whose entries have ended.
local function ended_among(inbox, state, offsets)
  local ended = {}
  if not state.ended or #offsets == 0 then return ended end
  local names = {}
  for i, offset in ipairs(offsets) do names[i] = int(offset) end
  -- In parts, because Lua's stack limits the number of arguments.
  for first = 1, #names, 1000 do
    local last = math.min(first + 999, #names)
    local scores = redis.call('ZMSCORE', inbox.ends, unpack(names, first, last))
    for i, score in ipairs(scores) do
      if is_ended(score) then ended[offsets[first + i - 1]] = true end
    end
  end
  return ended
end

-- The set of offsets of those of `items` that have ended.
local function ended_items(inbox, state, items)
  if not state.ended then return {} end
  local offsets = {}
  for i, item in ipairs(items) do
    local _, offset = split_id(item[1])
    offsets[i] = offset
  end
  return ended_among(inbox, state, offsets)
end

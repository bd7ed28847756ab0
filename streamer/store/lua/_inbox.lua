-- What every inbox script begins with. The first two arguments are the retention and the
-- caller's clock (0: the store's own; a test gives its own). An inbox is four keys in a
-- row. Offsets, times and tags stay below 2^53, which a Lua number holds.

local RETENTION_MS = tonumber(ARGV[1])

local function clock_ms()
  local given = tonumber(ARGV[2])
  if given > 0 then return given end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local NOW_MS = clock_ms()

-- `%d` of a Lua number; tostring() would write 1.7e+12.
local function int(number)
  return string.format('%.0f', number)
end

-- Stream id "<ms>-<offset>" to its two numbers.
local function place(id)
  local dash = string.find(id, '-', 1, true)
  return tonumber(string.sub(id, 1, dash - 1)), tonumber(string.sub(id, dash + 1))
end

-- The inbox whose keys begin at KEYS[i].
local function inbox_at(i)
  return { state = KEYS[i], log = KEYS[i + 1], done = KEYS[i + 2], reads = KEYS[i + 3] }
end

local function read_state(inbox)
  local f = redis.call('HMGET', inbox.state, 'epoch', 'head', 'ms', 'tag', 'base', 'marks')
  return {
    epoch = f[1] and tonumber(f[1]) or 0,
    head = tonumber(f[2] or 0),
    ms = tonumber(f[3] or 0),
    tag = f[4] or '0',
    base = tonumber(f[5] or 0),
    marks = tonumber(f[6] or 0),
  }
end

-- Drop what is older than the retention; return the lowest offset still kept, which is
-- head + 1 when nothing is. Looking at the first item alone makes it O(1) when nothing
-- is due.
local function floor_offset(inbox, state)
  local first = redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1]
  if not first then return state.head + 1 end
  local ms, offset = place(first[1])
  if ms >= NOW_MS - RETENTION_MS then return offset end
  redis.call('XTRIM', inbox.log, 'MINID', int(NOW_MS - RETENTION_MS))
  first = redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1]
  if not first then return state.head + 1 end
  ms, offset = place(first[1])
  return offset
end

-- Exact count of kept entries that are not done: O(kept / 8) bytes, 1.3 KB at most.
local function unread(inbox, state, floor)
  local from = math.max(floor, state.base)
  if from > state.head then return 0 end
  local done = redis.call(
    'BITCOUNT', inbox.done, int(from - state.base), int(state.head - state.base), 'BIT')
  return state.head - from + 1 - done
end

-- The item at that place if it carries that tag, else nil.
local function item_at(inbox, ms, offset, tag)
  local id = ms .. '-' .. offset
  local item = redis.call('XRANGE', inbox.log, id, id)[1]
  if item and item[2][2] == tag then return item end
  return nil
end

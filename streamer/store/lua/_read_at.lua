-- When entries were read, behind _inbox.lua.

-- Return two functions of an offset: whether it is done, and the ms of its read mark, 0
-- where there is none. Both are O(1) but for the first call. Of an entry that is over the
-- second means nothing unless it had been read before. A third one gives the same as the
-- second for a list of offsets, and an empty list where none has a mark.
local function read_marks(inbox, state)
  local bits = nil
  local function is_done(offset)
    if offset < state.base then return true end
    bits = bits or redis.call('GET', inbox.done) or ''
    local at = offset - state.base
    local byte = string.byte(bits, math.floor(at / 8) + 1) or 0
    return math.floor(byte / 2 ^ (7 - at % 8)) % 2 == 1
  end

  -- Time of the first mark that covered an offset, which is the shortest range: each was
  -- made behind the ones before it. Times are no help, since clocks are set back.
  local ranges = nil
  local function range_read_at(offset)
    if not ranges then
      ranges = {}
      local all = redis.call('HGETALL', inbox.reads)
      for i = 1, #all, 2 do
        local upto = string.match(all[i], '^<=(%d+)$')
        if upto then ranges[#ranges + 1] = { tonumber(upto), tonumber(all[i + 1]) } end
      end
    end
    local first = nil
    for _, range in ipairs(ranges) do
      if range[1] >= offset and (not first or range[1] < first[1]) then first = range end
    end
    return first and first[2] or 0
  end

  local function read_at(offset)
    if not is_done(offset) then return 0 end
    local own = redis.call('HGET', inbox.reads, int(offset))
    if own then return tonumber(own) end
    return range_read_at(offset)
  end

  local function read_at_each(offsets)
    local done, names = {}, {}
    for i, offset in ipairs(offsets) do
      if is_done(offset) then
        done[#done + 1] = i
        names[#names + 1] = int(offset)
      end
    end
    if #done == 0 then return {} end
    local times = {}
    for i = 1, #offsets do times[i] = 0 end
    for first = 1, #names, 1000 do
      local last = math.min(first + 999, #names)
      local own = redis.call('HMGET', inbox.reads, unpack(names, first, last))
      for i, ms in ipairs(own) do
        local at = done[first + i - 1]
        times[at] = ms and tonumber(ms) or range_read_at(offsets[at])
      end
    end
    return times
  end

  return is_done, read_at, read_at_each
end

-- When entries were read. Include after _inbox.lua and _ranges.lua.
--
-- Commands  GET HGET HMGET

-- Returns three functions: whether an offset is done; the time of its read mark in ms, 0
-- for none; and the same for a list of offsets, an empty list if none has a mark. The first
-- two are O(1) after the first call. For an ended entry the time is meaningless unless the
-- entry was read before it ended.
local function read_marks(inbox, state)
  local bits = nil
  local function is_done(offset)
    if offset < state.base then return true end
    bits = bits or redis.call('GET', inbox.done) or ''
    local at = offset - state.base
    local byte = string.byte(bits, math.floor(at / 8) + 1) or 0
    return math.floor(byte / 2 ^ (7 - at % 8)) % 2 == 1
  end

  -- The time of the first mark that covers an offset. That is the shortest range, because
  -- each later range is longer. Times do not help, since clocks can be set back.
  local ranges = nil
  local function range_read_at(offset)
    ranges = ranges or range_marks(inbox.reads, state.range)
    for _, range in ipairs(ranges) do
      if range[1] >= offset then return range[2] end
    end
    return 0
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

-- Marks of all entries up to an offset at once. Needs nothing before it.
--
-- Commands  HGET HGETALL

local RANGES_MAX = 100

-- The last marks, as { offset, time in ms }; each reaches further than the one before it.
-- Entries below the oldest of them were read at its time at the latest.
local function range_marks(reads, range)
  local ranges = {}
  local list = redis.call('HGET', reads, 'upto')
  for offset, ms in string.gmatch(list or '', '(%d+):(%d+)') do
    ranges[#ranges + 1] = { tonumber(offset), tonumber(ms) }
  end
  if range == 0 or (#ranges > 0 and ranges[#ranges][1] >= range) then return ranges end
  -- Older versions, and newer ones beside them, write one field for each. The next mark
  -- writes the list.
  local all = redis.call('HGETALL', reads)
  for i = 1, #all, 2 do
    local upto = string.match(all[i], '^<=(%d+)$')
    if upto then ranges[#ranges + 1] = { tonumber(upto), tonumber(all[i + 1]) } end
  end
  table.sort(ranges, function(one, other) return one[1] < other[1] end)
  return ranges
end

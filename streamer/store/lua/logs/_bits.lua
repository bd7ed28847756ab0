-- Runs of bits in a bitmap. Needs nothing before it.
--
-- Commands  HSET

-- The runs of offsets from `first` to `last` whose bit is 0, each as { first, last }. The
-- bitmap begins at offset `base`; bits after its end are 0. Whole bytes are skipped.
local function zero_runs(bits, base, first, last)
  local runs, from, offset = {}, nil, first
  while offset <= last do
    local at = offset - base
    local index, bit = math.floor(at / 8) + 1, at % 8
    local byte = string.byte(bits, index)
    if not byte then
      from, offset = from or offset, last + 1
    elseif bit == 0 and byte == 255 then
      if from then runs[#runs + 1], from = { from, offset - 1 }, nil end
      local following = string.find(bits, '[^\255]', index) or #bits + 1
      offset = base + (following - 1) * 8
    elseif bit == 0 and byte == 0 then
      from = from or offset
      local following = string.find(bits, '[^%z]', index) or #bits + 1
      offset = base + (following - 1) * 8
    elseif math.floor(byte / 2 ^ (7 - bit)) % 2 == 1 then
      if from then runs[#runs + 1], from = { from, offset - 1 }, nil end
      offset = offset + 1
    else
      from, offset = from or offset, offset + 1
    end
  end
  if from and from <= last then runs[#runs + 1] = { from, last } end
  return runs
end

-- Set one value in the fields `prefix .. offset` of a hash, for the offsets of runs up to
-- `last`. In parts, because Lua's stack limits the number of arguments.
local function set_each(key, prefix, runs, last, value)
  local pairs_, PART = {}, 1000
  local function flush()
    if #pairs_ > 0 then redis.call('HSET', key, unpack(pairs_)) end
    pairs_ = {}
  end
  for _, run in ipairs(runs) do
    for offset = run[1], math.min(run[2], last) do
      pairs_[#pairs_ + 1] = prefix .. string.format('%.0f', offset)
      pairs_[#pairs_ + 1] = value
      if #pairs_ >= PART then flush() end
    end
  end
  flush()
end

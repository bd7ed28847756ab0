#!lua flags=allow-oom
-- Change a player's marks in an audience. The caller has found the offsets in the audience's
-- log. Marks are not announced here: the mark in the player's own log, which follows, does
-- that. If that one fails, the version of the player's pages has changed nevertheless. A
-- deletion follows its control entry in that log, and announces that the count has changed.
--
-- KEYS  views, state
-- ARGV  retention in ms, clock, name of the audience, epoch and lowest offset of its log,
--       channel of the player's streams; then "ids", "unread" or "deleted" and offsets, or
--       "upto" and an offset
-- Returns the offsets that changed; for "upto" the runs of them, the first and the last
-- offset of each. O(offsets), and O(kept / 8) bytes.
--
-- Commands  HDEL HGET HKEYS HMGET HSET

local views, name, epoch, floor = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
local channel, mode = ARGV[6], ARGV[7]

local fields = redis.call('HMGET', views, 'in ' .. name, 'base ' .. name,
  'done ' .. name, 'deleted ' .. name)
if not fields[1] then return {} end
local joined_epoch, joined = string.match(fields[1], '^(%d+) %d+ (%d+)')
local base, done = tonumber(fields[2] or 0), fields[3] or ''
local deleted = fields[4] or ''
joined = tonumber(joined)

-- Delete the times of entries that have left the log, or of a lost log, at most FORGOTTEN_MAX
-- at a time: the player's hash is never searched.
local FORGOTTEN_FROM, FORGOTTEN_MAX, FORGOTTEN_BELOW_MAX = 100, 1000, 20000
local function forget_left()
  local from = tonumber(redis.call('HGET', views, 'floor ' .. name) or joined + 1)
  from = math.max(from, floor - FORGOTTEN_BELOW_MAX)
  if floor - from < FORGOTTEN_FROM then return end
  local names, upto = {}, math.min(floor, from + FORGOTTEN_MAX)
  for offset = from, upto - 1 do names[#names + 1] = 'read ' .. name .. ' ' .. int(offset) end
  redis.pcall('HDEL', views, unpack(names))
  redis.pcall('HSET', views, 'floor ' .. name, int(upto))
end
local function forget_all()
  local names = {}
  for _, field in ipairs(redis.call('HKEYS', views)) do
    if string.match(field, '^read (%S+) %d+$') == name then names[#names + 1] = field end
  end
  for i = 1, #names, 1000 do
    redis.call('HDEL', views, unpack(names, i, math.min(i + 999, #names)))
  end
end

if joined_epoch ~= epoch then
  -- The log was lost, and the marks belong to the old one; or it has no entries yet.
  if joined_epoch ~= '0' then
    joined, base, done, deleted = 0, 0, '', ''
    redis.call('HDEL', views, 'upto ' .. name, 'acked ' .. name, 'deleted ' .. name,
      'floor ' .. name)
    forget_all()
  end
  redis.call('HSET', views, 'in ' .. name,
    table.concat({ epoch, '0', int(joined), '0' }, ' '))
end

local changed, unread = {}, {}
local first = math.max(floor, joined + 1)

local function store_bits()
  redis.call('HSET', views, 'base ' .. name, int(base), 'done ' .. name, done)
end

if mode == 'upto' then
  local upto = tonumber(ARGV[8])
  local runs = {}
  if math.max(first, base) <= upto then
    runs = zero_runs(done, base, math.max(first, base), upto)
  end
  if upto + 1 > base then
    -- Whole bytes are dropped: what is below the bitmap is done.
    local to = upto + 1 - (upto + 1) % 8
    done, base = string.sub(done, (to - base) / 8 + 1), to
    local kept = 2 ^ (8 - (upto + 1) % 8)
    if kept < 256 then
      done = string.char(256 - kept + (string.byte(done) or 0) % kept) .. string.sub(done, 2)
    end
  end
  if #runs > 0 then
    -- The last hundred marks are kept. Entries below the oldest of them were read at its
    -- time at the latest.
    local marks, highest = {}, 0
    for mark in string.gmatch(redis.call('HGET', views, 'upto ' .. name) or '', '%S+') do
      highest = tonumber(string.match(mark, '^%d+'))
      if highest >= floor then marks[#marks + 1] = mark end
    end
    -- An entry that an earlier mark covers was marked as unread since. It gets a time of
    -- its own, so that each mark reaches further than the one before it.
    set_each(views, 'read ' .. name .. ' ', runs, highest, int(NOW_MS))
    if upto > highest then marks[#marks + 1] = int(upto) .. ':' .. int(NOW_MS) end
    if #marks > 100 then table.remove(marks, 1) end
    redis.call('HSET', views, 'upto ' .. name, table.concat(marks, ' '))
    count_change(KEYS[2])
  end
  store_bits()
  forget_left()
  for _, run in ipairs(runs) do
    changed[#changed + 1] = int(run[1])
    changed[#changed + 1] = int(run[2])
  end
  return with_refusal(changed)
end

-- In parts: string.byte returns at most a few thousand numbers.
local bytes = {}
for i = 1, #done, 200 do
  for _, byte in ipairs({ string.byte(done, i, i + 199) }) do bytes[#bytes + 1] = byte end
end
local function bit_at(offset)
  local at = offset - base
  return math.floor(at / 8) + 1, 2 ^ (7 - at % 8)
end
local function is_done(offset)
  if offset < base then return true end
  local index, bit = bit_at(offset)
  return math.floor((bytes[index] or 0) / bit) % 2 == 1
end
local function set(offset, to)
  local index, bit = bit_at(offset)
  for i = #bytes + 1, index do bytes[i] = 0 end
  if is_done(offset) ~= to then bytes[index] = bytes[index] + (to and bit or -bit) end
end
-- Let the bitmap begin at the multiple of 8 at or below `offset`.
local function rebase(offset)
  local to = offset - offset % 8
  local kept = {}
  for i = 1, #bytes + (base - to) / 8 do
    local at = i + (to - base) / 8
    kept[i] = at < 1 and 255 or bytes[at] or 0
  end
  bytes, base = kept, math.max(to, 0)
end

if floor - base >= 8192 then rebase(floor) end
for i = 8, #ARGV do
  local offset = tonumber(ARGV[i])
  local read = 'read ' .. name .. ' ' .. ARGV[i]
  if offset < first or list_has(deleted, ARGV[i]) then
    -- Not visible to the player.
  elseif mode == 'unread' then
    if is_done(offset) then
      if offset < base then rebase(offset) end
      set(offset, false)
      unread[#unread + 1] = read
      changed[#changed + 1] = ARGV[i]
    end
  else
    if not is_done(offset) then
      set(offset, true)
      redis.call('HSET', views, read, int(NOW_MS))
      if mode == 'ids' then changed[#changed + 1] = ARGV[i] end
    end
    if mode == 'deleted' then
      deleted = deleted == '' and ARGV[i] or deleted .. ' ' .. ARGV[i]
      changed[#changed + 1] = ARGV[i]
    end
  end
end
forget_left()
if mode == 'deleted' then
  local kept = {}
  for word in string.gmatch(deleted, '%d+') do
    if tonumber(word) >= floor then kept[#kept + 1] = word end
  end
  redis.call('HSET', views, 'deleted ' .. name, table.concat(kept, ' '))
end

-- string.char takes at most a few hundred arguments.
local packed = {}
for i = 1, #bytes, 200 do
  packed[#packed + 1] = string.char(unpack(bytes, i, math.min(i + 199, #bytes)))
end
done = table.concat(packed)
store_bits()
-- After HSET, which would have to undo this.
for _, read in ipairs(unread) do redis.call('HDEL', views, read) end
-- A deletion changes it, too: a page that was read between the control entry and this has the
-- version of the entry, and the count before.
if #changed > 0 then count_change(KEYS[2]) end
-- A count that followed the control entry may have preceded this.
if mode == 'deleted' then publish(channel, 'count') end
return with_refusal(changed)

-- List a log by number, newest entry first.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, which ("any", "read" or "unread"), how many matches to skip,
--       how many to return at most, the offsets to consider, newest first (none: all)
-- Returns epoch, number of matches, items, and the time of each item's read mark in ms.
--
-- Offsets have no holes and marks are a bitmap, so the offsets of the result are known
-- before the first entry is read, and no other entry is. Ended entries do not match.
--
-- Commands  XRANGE XREVRANGE ZRANGEBYSCORE

local which, skip, count = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local inbox, state, floor = open_inbox(1)
local is_done, read_at = read_marks(inbox, state)

local ended = {}
if state.ended then
  local offsets = redis.call('ZRANGEBYSCORE', inbox.ends, '-inf', '(' .. COMING)
  for _, offset in ipairs(offsets) do ended[tonumber(offset)] = true end
end

local total, selected = 0, {}
local function consider(offset)
  if ended[offset] then return end
  if which ~= 'any' and is_done(offset) ~= (which == 'read') then return end
  total = total + 1
  if total > skip and #selected < count then selected[#selected + 1] = offset end
end

if #ARGV > 5 then
  for i = 6, #ARGV do
    local offset = tonumber(ARGV[i])
    if offset >= floor and offset <= state.head then consider(offset) end
  end
else
  for offset = state.head, floor, -1 do consider(offset) end
end

-- The time of the entry at `offset`, by binary search between the oldest entry and
-- `late_us`: the earliest time by which the log had reached that offset.
local early_us = nil
local function time_of(offset, late_us)
  if offset == state.head then return state.at_us end
  early_us = early_us or split_id(redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1][1])
  local low, high = early_us, late_us
  while low < high do
    local middle = low + math.floor((high - low) / 2)
    local item = redis.call('XREVRANGE', inbox.log, int(middle), '-', 'COUNT', 1)[1]
    local at_us, reached = split_id(item[1])
    if reached >= offset then high = at_us else low = middle + 1 end
  end
  return low
end

-- A search costs up to 43 reads of one entry, so a gap of up to NEAR entries is read
-- through instead. At most STEP entries are read at a time, because they may be large.
local NEAR, STEP = 32, 100
local items, marks = {}, {}
local late_us, id, last_read, i = state.at_us, nil, nil, 1
while i <= #selected do
  local newest, from = nil, selected[i]
  if id and last_read - from <= NEAR then
    newest, from = '(' .. id, last_read - 1
  else
    newest = int(time_of(from, late_us)) .. '-' .. int(from)
  end
  local last = i
  while selected[last + 1] and selected[last] - selected[last + 1] <= NEAR
    and from - selected[last + 1] < STEP do last = last + 1 end
  local read = redis.call(
    'XREVRANGE', inbox.log, newest, '-', 'COUNT', from - selected[last] + 1)
  local first = i
  for _, item in ipairs(read) do
    id = item[1]
    late_us, last_read = split_id(id)
    -- If the log was changed by hand, an entry may be missing; it is skipped.
    while selected[i] and selected[i] > last_read do i = i + 1 end
    if last_read == selected[i] then
      items[#items + 1] = item
      marks[#marks + 1] = read_at(last_read)
      i = i + 1
    end
  end
  if i == first then i = i + 1 end
end
return { int(state.epoch), total, items, marks }

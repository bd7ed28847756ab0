-- List an inbox by number: the newest entry is the first.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, which ("any", "read" or "unread"), how many of these to
--       leave out, how many to return at most, then the offsets that come into
--       question, newest first (none: all)
-- Gives epoch, how many match, items, and for each item the ms of its read mark.
--
-- What does not match is not touched: offsets have no holes and their marks are a
-- bitmap, so the entries selected are known by offset before the first is read. What is
-- over matches nothing.

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

-- The time of the entry at `offset`: the earliest by which the log had come that far.
-- It is looked for between the oldest entry and `late_ms`, halving what is left.
local early_ms = nil
local function time_of(offset, late_ms)
  if offset == state.head then return state.ms end
  early_ms = early_ms or split_id(redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1][1])
  local low, high = early_ms, late_ms
  while low < high do
    local middle = math.floor((low + high) / 2)
    local item = redis.call('XREVRANGE', inbox.log, int(middle), '-', 'COUNT', 1)[1]
    local ms, reached = split_id(item[1])
    if reached >= offset then high = ms else low = middle + 1 end
  end
  return low
end

-- Looking for a place costs up to 33 reads of one entry, so what is no further away is
-- read through; and no more than STEP at a time, for what entries may weigh.
local NEAR, STEP = 32, 100
local items, marks = {}, {}
local late_ms, id, last_read, i = state.ms, nil, nil, 1
while i <= #selected do
  local newest, from = nil, selected[i]
  if id and last_read - from <= NEAR then
    newest, from = '(' .. id, last_read - 1
  else
    newest = int(time_of(from, late_ms)) .. '-' .. int(from)
  end
  local last = i
  while selected[last + 1] and selected[last] - selected[last + 1] <= NEAR
    and from - selected[last + 1] < STEP do last = last + 1 end
  local read = redis.call(
    'XREVRANGE', inbox.log, newest, '-', 'COUNT', from - selected[last] + 1)
  local first = i
  for _, item in ipairs(read) do
    id = item[1]
    late_ms, last_read = split_id(id)
    -- What is not there, in a log that was tampered with, is passed over.
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

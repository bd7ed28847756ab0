-- List an inbox by number: the newest entry is the first.
--
-- KEYS  the inbox
-- ARGV  retention ms, clock, which ("any", "read" or "unread"), how many of these to
--       leave out, how many to return at most, then the offsets that come into
--       question, newest first (none: all)
-- Gives epoch, how many match, items, and for each item the ms of its read mark.
--
-- What does not match is not touched: offsets have no holes and their marks are a
-- bitmap, so the entries wanted are known by offset before the first is read. What is
-- over matches nothing.

local which, skip, count = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local inbox, state, floor = open(1)
local is_done, read_at = read_marks(inbox, state)

local over = {}
if state.ended then
  local ended = redis.call('ZRANGEBYSCORE', inbox.ends, '-inf', '(' .. COMING)
  for _, offset in ipairs(ended) do over[tonumber(offset)] = true end
end

local total, wanted = 0, {}
local function consider(offset)
  if over[offset] then return end
  if which ~= 'any' and is_done(offset) ~= (which == 'read') then return end
  total = total + 1
  if total > skip and #wanted < count then wanted[#wanted + 1] = offset end
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
-- It is looked for between the oldest entry and `late`, halving what is left.
local early = nil
local function time_of(offset, late)
  if offset == state.head then return state.ms end
  early = early or place(redis.call('XRANGE', inbox.log, '-', '+', 'COUNT', 1)[1][1])
  local low, high = early, late
  while low < high do
    local middle = math.floor((low + high) / 2)
    local item = redis.call('XREVRANGE', inbox.log, int(middle), '-', 'COUNT', 1)[1]
    local ms, reached = place(item[1])
    if reached >= offset then high = ms else low = middle + 1 end
  end
  return low
end

-- Looking for a place costs up to 33 reads of one entry, so what is no further away is
-- read through; and no more than STEP at a time, for what entries may weigh.
local NEAR, STEP = 32, 100
local items, marks = {}, {}
local late, id, behind, i = state.ms, nil, nil, 1
while i <= #wanted do
  local newest, from = nil, wanted[i]
  if id and behind - from <= NEAR then
    newest, from = '(' .. id, behind - 1
  else
    newest = int(time_of(from, late)) .. '-' .. int(from)
  end
  local last = i
  while wanted[last + 1] and wanted[last] - wanted[last + 1] <= NEAR
    and from - wanted[last + 1] < STEP do last = last + 1 end
  local read = redis.call(
    'XREVRANGE', inbox.log, newest, '-', 'COUNT', from - wanted[last] + 1)
  local first = i
  for _, item in ipairs(read) do
    id = item[1]
    late, behind = place(id)
    -- What is not there, in a log that was tampered with, is passed over.
    while wanted[i] and wanted[i] > behind do i = i + 1 end
    if behind == wanted[i] then
      items[#items + 1] = item
      marks[#marks + 1] = read_at(behind)
      i = i + 1
    end
  end
  if i == first then i = i + 1 end
end
return { int(state.epoch), total, items, marks }

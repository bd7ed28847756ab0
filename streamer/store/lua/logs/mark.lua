#!lua flags=allow-oom
-- Mark entries as read, atomically, and announce it. Idempotent. Entries that are not in the
-- log are ignored.
--
-- KEYS  the log
-- ARGV  retention in ms, clock, channel, body of the announcement, unread entries in other
--       logs of the player, whether entries were marked there (0 or 1); then "ids" and
--       time, offset, tag of each, or "up_to" and epoch, time, offset, tag, or "all".
--       Before the word "older:" if older versions have to read what is written.
-- Returns unread entries in all logs, entries newly marked in this one, version of the marks.
--
-- Commands  GETRANGE HSET

local channel, body, elsewhere = ARGV[3], ARGV[4], tonumber(ARGV[5])
local force = ARGV[6] == '1'
local older = string.sub(ARGV[7], 1, 6) == 'older:'
local mode = older and string.sub(ARGV[7], 7) or ARGV[7]
local FIRST = 8

local inbox, state, floor = open_inbox(1)
local before = count_unread(inbox, state, floor)

-- Entries below `state.range`, up to which all entries were marked at once, that are not
-- done were marked as unread since, and get a time of their own.
local function keep_own_times(offset)
  local from, last = math.max(floor, state.base), math.min(state.range, offset)
  if from > last then return end
  local bits = redis.call('GETRANGE', inbox.done, 0, int(math.floor((last - state.base) / 8)))
  local runs = zero_runs(bits, state.base, from, last)
  set_each(inbox.reads, '', runs, last, int(NOW_MS))
end

-- O(marked again), and O(kept / 8) bytes: whole bytes of the bitmap are dropped.
local function mark_up_to(offset)
  keep_own_times(offset)
  rebase(inbox, state, offset + 1)
  for done = math.max(state.base, 1), offset do set_done(inbox, state, done) end
  -- A mark that changes nothing is not stored, so each later range is longer.
  if offset > state.range and count_unread(inbox, state, floor) < before then
    if older then
      redis.call('HSET', inbox.reads, '<=' .. int(offset), int(NOW_MS))
      redis.call('HSET', inbox.state, 'range', int(offset))
      return
    end
    local words = {}
    for _, range in ipairs(range_marks(inbox.reads, state.range)) do
      words[#words + 1] = int(range[1]) .. ':' .. int(range[2])
    end
    words[#words + 1] = int(offset) .. ':' .. int(NOW_MS)
    local first = math.max(1, #words - RANGES_MAX + 1)
    redis.call('HSET', inbox.reads, 'upto', table.concat(words, ' ', first))
    redis.call('HSET', inbox.state, 'range', int(offset))
  end
end

local function mark_one(at_us, offset, tag)
  local number = tonumber(offset)
  if number < math.max(floor, state.base) or number > state.head then return end
  if not item_at(inbox, at_us, offset, tag) then return end
  if not set_done(inbox, state, number) then
    redis.call('HSET', inbox.reads, offset, int(NOW_MS))
  end
end

if before > 0 then
  if floor - state.base >= BASE_BELOW_MAX then rebase(inbox, state, floor) end
  if mode == 'ids' then
    for i = FIRST, #ARGV, 3 do mark_one(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  elseif mode == 'all' then
    mark_up_to(state.head)
  else
    local epoch, at_us, offset, tag = unpack(ARGV, FIRST, FIRST + 3)
    offset = tonumber(offset)
    if is_known_position(state, floor, inbox, tonumber(epoch), at_us, offset, tag) then
      mark_up_to(offset)
    end
  end
end

local after = count_unread(inbox, state, floor)
-- An older version takes every field for that of an offset when it deletes some.
if after < before and not older then trim_reads(inbox, state, floor) end
if after < before or force then
  announce_marks(inbox, state, channel, body)
end
return with_refusal({ after + elsewhere, before - after, state.marks })

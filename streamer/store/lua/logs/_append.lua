-- Appending to a log, for publishes, schedules, recipients of an audience and
-- withdrawals. Include after _announce.lua, _whole.lua and _inbox.lua.
--
-- An entry is a table with `tag`, `fragment` and `type`, and optionally `device`, the only
-- device it is for; `expires`, in ms; `collapse`, the key by which it replaces an earlier
-- entry; `withdraws`, an id; `trace`, further fields of its announcement, which are not
-- stored. Appending adds `offset` and `replaces`.
--
-- Commands  DEL EXISTS HDEL HGET HGETALL HLEN HSET PEXPIRE SISMEMBER XADD XINFO XTRIM ZADD
--           ZCARD ZRANGE ZREM ZSCORE

local OFFSET_MAX = 4294967295
local HOUR_US = 3600000000
local DAY_MS = 86400000

-- An entry from arguments of a script: expires "0" for never, collapse "" for no key.
local function entry_of(tag, fragment, kind, expires, collapse)
  return {
    tag = tag,
    fragment = fragment,
    type = kind,
    expires = expires ~= '0' and tonumber(expires) or nil,
    collapse = collapse ~= '' and collapse or nil,
  }
end

-- The id of an entry, as text. Built from parts, because it has 128 bits. The layout is in
-- tests/vectors/ids.json.
local function id_of(at_us, offset, tag)
  local ms = math.floor(at_us / 1000)
  local fraction = math.floor(at_us % 1000 * 4096 / 1000)
  return string.format('%08x-%04x-%04x-%04x-%06x%06x',
    math.floor(ms / 2 ^ 16), ms % 2 ^ 16,
    0x7000 + fraction, 0x8000 + math.floor(offset / 2 ^ 18),
    offset % 2 ^ 18 * 2 ^ 6 + math.floor(tag / 2 ^ 24), tag % 2 ^ 24)
end

-- Delete records in `ends` and `collapse` of entries that have left the log. By pcall: a
-- refusal must not undo an append.
local function trim_ends(inbox, state, floor)
  local size_max = state.head - floor + 1 + GONE_MAX
  if redis.call('ZCARD', inbox.ends) > size_max then
    for _, offset in ipairs(redis.call('ZRANGE', inbox.ends, 0, -1)) do
      if tonumber(offset) < floor then redis.pcall('ZREM', inbox.ends, offset) end
    end
  end
  if redis.call('HLEN', inbox.collapse) > size_max then
    local fields = redis.call('HGETALL', inbox.collapse)
    for i = 1, #fields, 2 do
      local offset = tonumber(string.match(fields[i + 1], ' (%d+) '))
      if offset < floor then redis.pcall('HDEL', inbox.collapse, fields[i]) end
    end
  end
end

-- The entry that `entry` replaces, if it is in the log and has not ended: its offset and
-- its id, or nil.
local function predecessor(inbox, state, entry)
  local before = redis.call('HGET', inbox.collapse, entry.collapse)
  if not before or not state.ended then return nil end
  local at_us, offset, tag = string.match(before, '^(%d+) (%d+) (%d+)$')
  if tonumber(at_us) < NOW_US - RETENTION_US then return nil end
  if not item_at(inbox, at_us, offset, tag) then return nil end
  local score = tonumber(redis.call('ZSCORE', inbox.ends, offset) or COMING)
  -- It may have expired without being recorded as ended yet.
  if is_ended(score) or (score > COMING and score <= NOW_MS) then return nil end
  return tonumber(offset), id_of(tonumber(at_us), tonumber(offset), tonumber(tag))
end

-- Whether XADD was refused because the stream has had a later id. It has if an append was
-- undone, because XDEL does not give its id back, and the clock was set back since.
local function is_before_last(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'equal or smaller')
end

-- The last id that a stream has had.
local function last_id(log)
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local function store_item(inbox, state, entry)
  local item = { 't', entry.tag, 'n', entry.fragment }
  local function add(name, value)
    if not value then return end
    item[#item + 1] = name
    item[#item + 1] = value
  end
  add('d', entry.device)
  add('r', entry.replaces)
  add('w', entry.withdraws)
  local id = int(state.at_us) .. '-' .. int(entry.offset)
  local reply = server.pcall('XADD', inbox.log, id, unpack(item))
  if is_before_last(reply) then
    state.at_us = split_id(last_id(inbox.log)) + 1
    redis.call('XADD', inbox.log, int(state.at_us) .. '-' .. int(entry.offset), unpack(item))
  else
    check(reply)
    undo[#undo + 1] = { 'XDEL', inbox.log, id }
  end
end

-- Record how a stored entry will end, and end the entry that it replaces. The caller stores
-- the state.
local function record_ends(inbox, state, entry, replaced)
  if replaced then end_entry(inbox, state, replaced, REPLACED) end
  if entry.collapse then
    redis.call('HSET', inbox.collapse, entry.collapse,
      table.concat({ int(state.at_us), int(entry.offset), entry.tag }, ' '))
  end
  if entry.withdraws then
    end_entry(inbox, state, entry.offset, CONTROL)
  elseif entry.expires and entry.expires <= NOW_MS then
    end_entry(inbox, state, entry.offset, -entry.expires)
  elseif entry.expires then
    redis.call('ZADD', inbox.ends, int(entry.expires), int(entry.offset))
    state.ends_at = math.min(entry.expires, state.ends_at or entry.expires)
  end
end

-- Append one entry; return whether it can end, or ends another.
local function append_one(inbox, state, entry)
  state.head = state.head + 1
  state.tag, entry.offset = entry.tag, state.head
  if not (entry.expires or entry.collapse or entry.withdraws) then
    store_item(inbox, state, entry)
    return false
  end
  local replaced = nil
  if entry.collapse then replaced, entry.replaces = predecessor(inbox, state, entry) end
  store_item(inbox, state, entry)
  state.ended = state.ended or 0
  if state.head - state.base >= BASE_BELOW_MAX then
    local floor = floor_offset(inbox, state)
    if floor - state.base >= BASE_BELOW_MAX then rebase(inbox, state, floor) end
  end
  record_ends(inbox, state, entry, replaced)
  return true
end

-- Trim old entries and renew the expiry of all keys.
local function trim_and_expire(inbox, state)
  local floor = floor_offset(inbox, state)
  -- A day more than the retention, so that a key never expires before its entries. The
  -- state lives twice as long, so that offsets continue after a long absence.
  local lifetime = int(RETENTION_MS + DAY_MS)
  redis.call('PEXPIRE', inbox.log, lifetime)
  redis.call('PEXPIRE', inbox.done, lifetime)
  redis.call('PEXPIRE', inbox.reads, lifetime)
  if state.ended then
    trim_ends(inbox, state, floor)
    redis.call('PEXPIRE', inbox.ends, lifetime)
    redis.call('PEXPIRE', inbox.collapse, lifetime)
  end
  redis.call('PEXPIRE', inbox.state, int(2 * (RETENTION_MS + DAY_MS)))
end

-- Append entries to the log, and renew its keys. Keys are renewed at most once an hour: they
-- live a day longer than needed, and every read trims old entries. Checks nothing. The
-- caller has to, before, and has to limit the length after its last write.
local function append(inbox, state, batch, new_epoch)
  if state.epoch == 0 then
    -- Keys without state are the remains of a lost log, and their offsets mean nothing.
    -- EXISTS first: after a first DEL a full store would allow the script to write.
    local rest = { inbox.log, inbox.done, inbox.reads, inbox.ends, inbox.collapse }
    if redis.call('EXISTS', unpack(rest)) > 0 then redis.call('DEL', unpack(rest)) end
    state.epoch = tonumber(new_epoch)
  end
  local before_us, ended, ends_at = state.at_us, state.ended, state.ends_at
  state.at_us = math.max(NOW_US, state.at_us)
  local hour, can_end = math.floor(state.at_us / HOUR_US), false
  for _, entry in ipairs(batch) do
    if append_one(inbox, state, entry) then can_end = true end
  end
  -- In one write: each costs a read of what it replaces.
  local fields = { 'epoch', int(state.epoch), 'head', int(state.head),
    'at_us', int(state.at_us), 'tag', state.tag }
  local function add(name, value, before)
    if value == before then return end
    fields[#fields + 1] = name
    fields[#fields + 1] = int(value)
  end
  add('ended', state.ended, ended)
  add('ends_at', state.ends_at, ends_at)
  redis.call('HSET', inbox.state, unpack(fields))
  -- An entry that can end has perhaps created keys, which need an expiry.
  if can_end or hour ~= math.floor(before_us / HOUR_US) then trim_and_expire(inbox, state) end
end

-- Trim the oldest entries over the maximum. That cannot be undone, so it comes last.
local function limit_length(inbox, state, entries_max)
  if state.head > entries_max then redis.call('XTRIM', inbox.log, 'MAXLEN', entries_max) end
end

-- The beginning of an announcement.
local function announcement_kind(entry)
  local facts = {}
  if entry.device then facts[1] = 'device=' .. entry.device end
  if entry.replaces then facts[#facts + 1] = 'replaces=' .. entry.replaces end
  if entry.withdraws then facts[#facts + 1] = 'withdraws=' .. entry.withdraws end
  if entry.trace then facts[#facts + 1] = entry.trace end
  return #facts == 0 and 'entry' or 'with ' .. table.concat(facts, ',')
end

-- Announce entries. Fragments over `inline_max` are omitted, so that readers read the log,
-- and so are those of entries that have expired already.
local function announce(channel, state, batch, inline_max)
  for _, entry in ipairs(batch) do
    local fragment = entry.fragment
    if #fragment > inline_max then fragment = '' end
    if entry.expires and entry.expires <= NOW_MS then fragment = '' end
    publish(channel, table.concat({ announcement_kind(entry),
      int(state.epoch), int(state.at_us), int(entry.offset), entry.tag, fragment }, ' '))
  end
end

-- The entries of `batch` whose type the player has not muted.
local function without_muted(mutes, batch)
  if redis.call('EXISTS', mutes) == 0 then return batch end
  local kept = {}
  for _, entry in ipairs(batch) do
    entry.muted = redis.call('SISMEMBER', mutes, entry.type) == 1
    if not entry.muted then kept[#kept + 1] = entry end
  end
  return kept
end

-- What appending is made of, behind _inbox.lua: for a publish, for a schedule that
-- fires, for a recipient of an audience.

-- Append entries to the log, trim it, keep the keys alive. `batch` is a list of tag,
-- fragment and, where it is for one device of the player's only, that. Gives the first offset. Checks nothing: a script that fails half
-- way keeps what it wrote, so whatever can be wrong is looked at before.
local function append(inbox, state, now, batch, entries_max, new_epoch)
  if state.epoch == 0 then
    -- A log without state is the rest of something lost: its offsets mean nothing.
    -- Looked for first: a full store lets a script go on that has begun to write.
    if redis.call('EXISTS', inbox.log, inbox.done, inbox.reads) > 0 then
      redis.call('DEL', inbox.log, inbox.done, inbox.reads)
    end
    state.epoch = tonumber(new_epoch)
  end
  local first = state.head + 1
  state.ms = math.max(now, state.ms)
  for _, entry in ipairs(batch) do
    state.head = state.head + 1
    state.tag = entry[1]
    local id = int(state.ms) .. '-' .. int(state.head)
    if entry[3] then
      redis.call('XADD', inbox.log, id, 't', entry[1], 'n', entry[2], 'd', entry[3])
    else
      redis.call('XADD', inbox.log, id, 't', entry[1], 'n', entry[2])
    end
  end
  redis.call('XTRIM', inbox.log, 'MAXLEN', entries_max)
  redis.call('HSET', inbox.state, 'epoch', int(state.epoch), 'head', int(state.head),
    'ms', int(state.ms), 'tag', state.tag)

  -- A day more than the retention, so that a key never goes before its entries do; the
  -- state stays as long again, so that a player who was away finds offsets going on.
  local lifetime = int(RETENTION_MS + 86400000)
  redis.call('PEXPIRE', inbox.log, lifetime)
  redis.call('PEXPIRE', inbox.done, lifetime)
  redis.call('PEXPIRE', inbox.reads, lifetime)
  redis.call('PEXPIRE', inbox.state, int(2 * RETENTION_MS + 2 * 86400000))
  return first
end

-- Tell who is listening. A fragment over `inline_max` is left to be read.
local function announce(channel, state, first, batch, inline_max)
  for i, entry in ipairs(batch) do
    local fragment = entry[2]
    if #fragment > inline_max then fragment = '' end
    local kind = entry[3] and 'for ' .. entry[3] or 'entry'
    redis.call('SPUBLISH', channel, table.concat({ kind, int(state.epoch),
      int(state.ms), int(first + i - 1), entry[1], fragment }, ' '))
  end
end

local OFFSET_MAX = 4294967295

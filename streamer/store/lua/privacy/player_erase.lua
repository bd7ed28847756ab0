#!lua flags=allow-oom
-- Delete the keys of one player, in one step, so that no log is left without its state.
--
-- KEYS  views; then all keys of the player, views too
-- ARGV  channel of the player
-- Returns the number of keys that existed, and whether the views did (0 or 1).
--
-- Announces that the player is erased, which ends the streams that are open.
--
-- Commands  DEL EXISTS

local views = redis.call('EXISTS', KEYS[1])
local deleted = redis.call('DEL', unpack(KEYS))
publish(ARGV[1], 'erased')
return with_refusal({ deleted, views })

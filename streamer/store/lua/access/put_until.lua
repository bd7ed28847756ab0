#!lua flags=allow-oom
-- Store a small value that expires: a ticket, a session or a revocation.
--
-- KEYS  the key
-- ARGV  value, "PX" and a lifetime in ms, or "PXAT" and a time in ms; "NX" to store
--       nothing where something is
-- Returns OK, or nothing if there was something.
--
-- allow-oom: in a full store readers still open streams, and tokens can be revoked.
--
-- Commands  SET

return redis.call('SET', KEYS[1], unpack(ARGV))

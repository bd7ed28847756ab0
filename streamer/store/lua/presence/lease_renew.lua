#!lua flags=allow-oom
-- Write a lease again, of a connection that is open.
--
-- KEYS  lease
-- ARGV  "node:connection", instance ("" for none), lifetime of the key in ms
-- Returns 1.
--
-- allow-oom: in a full store open connections keep their leases.
--
-- Commands  HSET PEXPIRE

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1

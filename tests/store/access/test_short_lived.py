"""Small values that expire."""

from __future__ import annotations

from streamer.store.access.short_lived import put_once, put_until
from streamer.store.client.connection import RedisConnection

DIGEST = bytes(32)


async def test_what_has_happened_is_new_once(redis: RedisConnection) -> None:
    key = redis.keys.session(DIGEST)

    assert await put_once(redis, key, 60_000)
    assert not await put_once(redis, key, 60_000)
    assert 0 < await redis.call("PTTL", key) <= 60_000


async def test_a_value_replaces_the_one_before(redis: RedisConnection) -> None:
    key = redis.keys.session(DIGEST)

    await put_until(redis, key, b"one", "PX", 60_000)
    await put_until(redis, key, b"two", "PX", 60_000)

    assert await redis.call("GET", key) == b"two"

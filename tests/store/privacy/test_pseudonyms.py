"""The key of the hashes that name players."""

from __future__ import annotations

import secrets

from streamer.store.client.connection import RedisConnection
from streamer.store.privacy.pseudonyms import Pseudonyms


async def test_a_full_store_says_whose_key_it_has(redis: RedisConnection) -> None:
    key, other = await Pseudonyms(redis).key(), secrets.token_bytes(32)
    await redis.call("CONFIG", "SET", "maxmemory", 1)
    try:
        adopted = [await Pseudonyms(redis).adopt(it) for it in (key, other)]
    finally:
        await redis.call("CONFIG", "SET", "maxmemory", 0)

    assert adopted == [True, False]


async def test_a_store_without_a_key_takes_the_one_of_a_list(
    redis: RedisConnection,
) -> None:
    key = secrets.token_bytes(32)
    await redis.call("DEL", redis.keys.pseudonyms, write=True)

    assert await Pseudonyms(redis).adopt(key)

    assert await Pseudonyms(redis).key() == key

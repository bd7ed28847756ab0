"""A store that Sentinels watch is found, and found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamer.errors import StoreUnavailable, Unavailable
from streamer.store.client.address import FixedAddress
from streamer.store.client.connection import RedisConnection
from streamer.store.client.sentinel import SentinelAddress, address_at
from streamer_conformance.listener import Listener

from ...e2e.processes import GUARD_S, free_port
from ...e2e.sentinels import NAME, SENTINEL_PASSWORD, WatchedStore


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    store = WatchedStore(tmp_path)
    try:
        yield await store.start()
    finally:
        store.discard()


async def written(redis: RedisConnection) -> None:
    """Write, again and again until the store takes it."""
    deadline = time.monotonic() + GUARD_S
    while True:
        try:
            await redis.call("INCR", "n", write=True)
            return
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "how", ["killed", pytest.param("planned", marks=pytest.mark.nightly)]
)
async def test_a_connection_follows_the_primary(
    how: str, watched: WatchedStore
) -> None:
    redis = RedisConnection(address_at(watched.url))
    try:
        assert await redis.call("INCR", "n", write=True) == 1
        first = redis.server
        if how == "planned":
            await watched.fail_over()
        else:
            await watched.primary.kill()
        while redis.server in (first, ""):
            await written(redis)
        reply = await redis.call("CONFIG", "GET", "port")
        assert reply == [b"port", str(watched.replica.port).encode()]
    finally:
        await redis.close()


async def test_one_sentinel_is_enough_to_find_the_primary(
    watched: WatchedStore,
) -> None:
    address = address_at(watched.url)
    await watched.sentinels[0].kill()
    await watched.sentinels[2].kill()
    for _ in range(3):
        assert (await address.locate()).port == watched.primary.port


async def test_the_answer_of_each_sentinel_is_told(watched: WatchedStore) -> None:
    dead = free_port()
    alive, other = (each.port for each in watched.sentinels[:2])
    hosts = f"127.0.0.1:{dead},127.0.0.1:{alive}"
    url = f"redis+sentinel://{hosts}/other?sentinel_password={SENTINEL_PASSWORD}"
    with pytest.raises(StoreUnavailable) as failed:
        await address_at(url).locate()
    assert f"127.0.0.1:{dead}: Connection refused" in failed.value.words
    assert f"127.0.0.1:{alive}: knows no primary named 'other'" in failed.value.words

    url = f"redis+sentinel://127.0.0.1:{other}/{NAME}?sentinel_password=wrong"
    with pytest.raises(StoreUnavailable, match="unavailable") as failed:
        await address_at(url).locate()
    assert "WRONGPASS" in failed.value.reason
    assert "wrong " not in failed.value.reason


async def test_a_server_that_is_no_sentinel_is_told(redis: RedisConnection) -> None:
    address = address_at("redis+sentinel://127.0.0.1/main")
    assert isinstance(address, SentinelAddress)
    address._sentinels = [await redis.address.locate()]
    with pytest.raises(StoreUnavailable, match="unavailable") as failed:
        await address.locate()
    assert "unknown command 'SENTINEL'" in failed.value.words


async def test_a_sentinel_that_is_silent_holds_nobody_up(
    watched: WatchedStore,
) -> None:
    async def say_nothing(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()

    async with Listener(say_nothing) as listener:
        url = watched.url.replace("@", f"@127.0.0.1:{listener.port},", 1)
        address = address_at(url)
        for _ in range(4):  # each is asked first once
            assert (await address.locate()).port == watched.primary.port


def test_the_url_says_how_a_store_is_found() -> None:
    assert isinstance(address_at("redis://db"), FixedAddress)
    address = address_at("redis+sentinel://:secret@a,b:1/main/3")
    assert isinstance(address, SentinelAddress)
    assert address.where == "'main' of the Sentinels a:26379, b:1"
    assert address.database == 3
    with pytest.raises(ValueError, match="names Sentinels"):
        FixedAddress("redis+sentinel://a/main")

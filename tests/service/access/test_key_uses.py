"""The last use of backend keys: stored seldom, and not lost with an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamer.errors import StoreUnavailable
from streamer.model import App
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.key_uses import KeyUses
from streamer.store.access.apps import Apps, key_digest
from streamer.store.client.connection import RedisConnection
from streamer.store.server.embedded import attach

NOW_S = 1_800_000_000
DEMO = App("demo")


class World:
    def __init__(self, redis: RedisConnection) -> None:
        self.redis = redis
        self.now_s = float(NOW_S)
        self.apps = Apps(redis)
        self.uses = KeyUses(self.apps, clock=lambda: self.now_s)
        self.authenticator = Authenticator(self.apps, key_uses=self.uses)

    async def use(self, key: str) -> None:
        await self.authenticator.caller(Credentials.from_token(key))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with attach(tmp_path / "store") as url:
        redis = RedisConnection(url)
        world = World(redis)
        await world.apps.create(DEMO)
        yield world
        await redis.close()


async def test_requests_note_the_use_of_a_key_and_write_nothing(world: World) -> None:
    key = await world.apps.add_key(DEMO)
    digest = key_digest(key.encode())
    for _ in range(100):
        world.now_s += 1
        await world.use(key)
    assert await world.apps.key_uses() == {}

    await world.uses.store()
    assert await world.apps.key_uses() == {digest: (NOW_S + 100) * 1_000}

    await world.redis.call("DEL", world.redis.keys.key_uses, write=True)
    await world.uses.store()  # nothing is new
    assert await world.apps.key_uses() == {}


async def test_uses_during_an_outage_are_stored_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = [await world.apps.add_key(DEMO) for _ in range(2)]
    await world.use(first)
    await world.use(second)

    async def refuse(used_ms: object) -> None:
        world.now_s += 1
        await world.use(second)
        raise StoreUnavailable("no")

    with monkeypatch.context() as patched:
        patched.setattr(world.apps, "note_uses", refuse)
        with pytest.raises(StoreUnavailable):
            await world.uses.store()

    await world.uses.store()
    assert await world.apps.key_uses() == {
        key_digest(first.encode()): NOW_S * 1_000,
        key_digest(second.encode()): (NOW_S + 1) * 1_000,
    }


async def test_the_last_uses_are_stored_when_a_node_stops(world: World) -> None:
    running = asyncio.create_task(world.uses.run())
    await asyncio.sleep(0)
    key = await world.apps.add_key(DEMO)
    await world.use(key)

    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running

    assert await world.apps.key_uses() == {key_digest(key.encode()): NOW_S * 1_000}


async def test_uses_are_stored_while_a_node_runs(world: World) -> None:
    uses = KeyUses(world.apps, clock=lambda: NOW_S, interval_s=0.001)
    key = await world.apps.add_key(DEMO)
    running = asyncio.create_task(uses.run())
    uses.note(key_digest(key.encode()))

    async with asyncio.timeout(60):
        while not await world.apps.key_uses():  # noqa: ASYNC110
            await asyncio.sleep(0)

    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running

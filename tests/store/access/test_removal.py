"""Removing an app with everything that is stored for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamer.model import (
    App,
    Log,
    Notification,
    Player,
    Topic,
    encode_fragment,
    everyone_log,
    topic_log,
)
from streamer.store.access import removal
from streamer.store.access.apps import Apps
from streamer.store.access.removal import remove_app
from streamer.store.client.connection import RedisConnection
from streamer.store.client.scanning import scan
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.presence.leases import Leases
from streamer.store.scheduling.registered_texts import RegisteredTexts

GONE, STAYS = App("bench-1"), App("bench-12")


async def keys_of(redis: RedisConnection) -> set[bytes]:
    found: Any = await redis.call("KEYS", "*")
    return set(found)


async def fill(redis: RedisConnection, app: App) -> None:
    inbox, fragment = Inbox(redis), encode_fragment(Notification(title="a"))
    await Apps(redis).create(app)
    await Apps(redis).add_key(app)
    for log in (
        Log(app, Player("bench-1")),
        Log(app, Player("x:bench-1:y")),
        topic_log(app, Topic("bench-1:t")),
        everyone_log(app),
    ):
        await inbox.append_many([(log, [Draft(fragment)])])
    await RegisteredTexts(redis).register(app, "bench-1", "text")


async def test_nothing_of_the_app_stays_and_all_of_another_does(
    redis: RedisConnection,
) -> None:
    await fill(redis, STAYS)
    before = await keys_of(redis)
    records = await redis.call("HGETALL", redis.keys.backend_keys)
    await fill(redis, GONE)

    await remove_app(redis, GONE)

    assert await keys_of(redis) == before
    assert await redis.call("HGETALL", redis.keys.backend_keys) == records
    assert await Apps(redis).get(GONE) is None
    assert await Apps(redis).get(STAYS) is not None
    assert len(await Apps(redis).list_keys()) == 1


async def test_a_connection_that_closes_meanwhile_leaves_nothing(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, node = Log(GONE, Player("p")), Leases(redis, leases_max=5)
    lease, _ = await node.acquire(log, "one")
    before = await keys_of(redis) - {redis.keys.lease(log).encode()}
    await fill(redis, GONE)

    async def scan_beside_a_release(*args: Any) -> AsyncIterator[list[bytes]]:
        found = [keys async for keys in scan(*args)]
        # Its other keys have been found, and it is released before they are gone.
        await node.release(lease)
        for keys in found:
            yield keys

    monkeypatch.setattr(removal, "scan", scan_beside_a_release)
    await remove_app(redis, GONE)

    assert await keys_of(redis) == before


async def test_a_second_removal_is_harmless(redis: RedisConnection) -> None:
    await fill(redis, GONE)
    await remove_app(redis, GONE)

    await remove_app(redis, GONE)

    # The name is free again.
    await Apps(redis).create(GONE)

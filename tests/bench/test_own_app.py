"""The app of a load test: made in the store, and removed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from streamer.bench import own_app
from streamer.bench.own_app import OwnApp, Store
from streamer.model import App
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection


@pytest.fixture
def store(store_url: str) -> Store:
    @contextlib.asynccontextmanager
    async def store() -> AsyncIterator[RedisConnection]:
        redis = RedisConnection(store_url)
        try:
            yield redis
        finally:
            await redis.close()

    return store


def apps_in(store: Store, *, create: tuple[str, ...] = ()) -> set[str]:
    """Create apps; return the names of all."""

    async def names() -> set[str]:
        async with store() as redis:
            for name in create:
                await Apps(redis).create(App(name))
            return {record.name for record in await Apps(redis).list()}

    return asyncio.run(names())


def test_an_app_has_a_key_and_tokens_until_it_is_removed(store: Store) -> None:
    own = OwnApp(store)

    key, tokens = own.create(), own.mint(["a", "b"])

    assert key.startswith("sk_")
    assert len(set(tokens)) == 2
    assert apps_in(store) == {own.name}
    own.remove()
    own.remove()
    assert apps_in(store) == set()


def test_what_a_killed_run_left_is_removed_a_day_later(store: Store) -> None:
    now_s = int(time.time())
    stale = f"bench-{now_s - own_app.STALE_S - 60:x}-aa"
    others = {f"bench-{now_s - 60:x}-bb", "bench-mark", "bench", "demo"}
    apps_in(store, create=(stale, *others))
    own = OwnApp(store)

    own.create()

    assert apps_in(store) == {own.name, *others}


def test_an_app_that_was_never_made_is_not_removed(store: Store) -> None:
    OwnApp(store).remove()

    assert apps_in(store) == set()

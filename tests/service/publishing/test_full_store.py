"""A full store answers a repetition, whatever the quotas of the app are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from streamer.core.access.rights import Caller
from streamer.core.quotas import QuotaLimits
from streamer.errors import Conflict, StoreFull
from streamer.model import App, Notification, Player
from streamer.service.node.quotas import Quotas
from streamer.service.publishing.publisher import Publisher
from streamer.service.scheduling.schedules import Schedules
from streamer.store.access.quotas import QuotaUsage
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.scheduling.timetable import Timetable

BACKEND = Caller(
    App("full"), None, frozenset({"notification:player:*", "schedules:write"})
)
PLAYERS = [Player("p"), Player("q")]
HELLO, OTHER = Notification(title="hello"), Notification(title="other")
Filled = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture(
    params=[
        None,
        QuotaLimits(
            publishes_per_s=1_000,
            bytes_per_day=10**6,
            players=1_000,
            pending_schedules=1_000,
        ),
    ]
)
def make_quotas(
    request: pytest.FixtureRequest, redis: RedisConnection
) -> Callable[[], Quotas]:
    """Return a function that makes the quotas of another node."""

    async def no_record(_: App) -> None:
        return None

    def make() -> Quotas:
        if request.param is None:
            return Quotas.unlimited(redis)
        return Quotas(no_record, QuotaUsage(redis), request.param)

    return make


@pytest.fixture
def filled(redis: RedisConnection) -> Filled:
    """Return a function whose block finds the store full."""

    @asynccontextmanager
    async def filled() -> AsyncIterator[None]:
        await redis.call("CONFIG", "SET", "maxmemory", 1)
        try:
            yield
        finally:
            await redis.call("CONFIG", "SET", "maxmemory", 0)

    return filled


async def test_a_repeated_publish_is_answered(
    redis: RedisConnection, make_quotas: Callable[[], Quotas], filled: Filled
) -> None:
    async def publish(key: str, what: Notification = HELLO, **fields: Any) -> Any:
        publisher = Publisher(redis, Inbox(redis), quotas=make_quotas())
        return await publisher.publish(
            BACKEND, PLAYERS, [what], idempotency_key=key, **fields
        )

    first = await publish("k")
    with_ttl = await publish("ttl", ttls_ms=[60_000])

    async with filled():
        assert await publish("k") == first._replace(replayed=True)
        again = await publish("ttl", ttls_ms=[60_000])
        assert again == with_ttl._replace(replayed=True)
        with pytest.raises(StoreFull):
            await publish("fresh")
        with pytest.raises((Conflict, StoreFull)):
            await publish("k", OTHER)


async def test_another_request_with_a_used_key_conflicts_on_a_full_store(
    redis: RedisConnection, filled: Filled
) -> None:
    publisher = Publisher(redis, Inbox(redis))
    await publisher.publish(BACKEND, PLAYERS, [HELLO], idempotency_key="k")

    async with filled():
        with pytest.raises(Conflict):
            await publisher.publish(BACKEND, PLAYERS, [OTHER], idempotency_key="k")


async def test_a_repeated_schedule_is_answered(
    redis: RedisConnection, make_quotas: Callable[[], Quotas], filled: Filled
) -> None:
    due_ms = await redis.now_ms() + 3_600_000

    async def schedule(key: str) -> Any:
        schedules = Schedules(redis, Timetable(redis), make_quotas())
        made, _ = await schedules.schedule(
            BACKEND, PLAYERS, HELLO, due_ms=due_ms, idempotency_key=key
        )
        ids, _ = await schedules.schedule_each(
            BACKEND,
            PLAYERS,
            HELLO,
            due_ms=due_ms,
            label="l",
            idempotency_key=f"{key} each",
        )
        return made.id, ids

    first = await schedule("k")

    async with filled():
        assert await schedule("k") == first
        with pytest.raises(StoreFull):
            await schedule("fresh")

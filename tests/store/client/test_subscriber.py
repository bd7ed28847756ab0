"""A connection for subscriptions: kept open, and what is reported of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamer.errors import StoreUnavailable
from streamer.store.client import subscriber as subscriber_module
from streamer.store.client.address import FixedAddress
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.client.subscriber import Subscriber
from streamer.store_url import StoreUrl

from ...conftest import Until

CHANNEL = b"channel"


class Moving(FixedAddress):
    """A store that is not there yet."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.now: StoreUrl | None = None

    async def locate(self) -> StoreUrl:
        if self.now is None:
            raise StoreUnavailable("nobody is there")
        return self.now

    async def arrive(self) -> None:
        self.now = await super().locate()


class Owner:
    """Subscribes to one channel."""

    def __init__(self) -> None:
        self.subscriber: Subscriber | None = None
        self.seen: asyncio.Queue[object] = asyncio.Queue()
        self.takes = 1_000
        """How many more messages it takes."""
        self.watches = 0

    def on_open(self) -> None:
        assert self.subscriber is not None
        self.subscriber.send(("SSUBSCRIBE", CHANNEL))

    def may_take(self) -> bool:
        takes = self.takes > 0
        self.takes -= takes
        return takes

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        self.seen.put_nowait((kind, channel, payload))

    def on_watch(self, now_s: float) -> None:
        self.watches += 1

    def on_closed(self) -> None:
        self.seen.put_nowait("closed")

    async def next(self) -> object:
        async with asyncio.timeout(60):
            return await self.seen.get()


@pytest.fixture
def address(store_url: str) -> Moving:
    return Moving(store_url)


@pytest.fixture
def faults() -> StoreFaults:
    return StoreFaults()


@pytest.fixture
async def owner(address: Moving, faults: StoreFaults) -> AsyncIterator[Owner]:
    owner = Owner()
    owner.subscriber = Subscriber(
        address, owner, name="test", part="tests", faults=faults
    )
    running = asyncio.create_task(owner.subscriber.run())
    yield owner
    running.cancel()
    await asyncio.wait([running])


async def test_messages_arrive_and_a_lost_connection_is_replaced(
    address: Moving, owner: Owner, redis: RedisConnection
) -> None:
    await address.arrive()

    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)
    await redis.call("SPUBLISH", CHANNEL, "a")
    assert await owner.next() == (b"smessage", CHANNEL, b"a")
    assert owner.subscriber is not None
    owner.subscriber.reconnect()
    assert await owner.next() == "closed"
    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)


async def test_a_store_that_is_unreachable_is_reported_until_it_is_reached(
    address: Moving,
    owner: Owner,
    faults: StoreFaults,
    until: Until,
) -> None:
    await until(lambda: faults.is_failing("connection for tests"))
    assert faults.reason == "the store is unavailable: nobody is there"

    await address.arrive()

    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)
    assert faults.reason is None


async def test_messages_wait_in_order_until_their_owner_takes_them(
    address: Moving, owner: Owner, redis: RedisConnection, until: Until
) -> None:
    await address.arrive()
    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)
    subscriber = owner.subscriber
    assert subscriber is not None
    owner.takes = 2
    for text in ("a", "b", "c", "d"):
        await redis.call("SPUBLISH", CHANNEL, text)
    assert await owner.next() == (b"smessage", CHANNEL, b"a")
    assert await owner.next() == (b"smessage", CHANNEL, b"b")
    await until(lambda: subscriber._replies)
    assert owner.seen.empty()

    owner.takes = 1_000
    subscriber.go_on()

    assert await owner.next() == (b"smessage", CHANNEL, b"c")
    assert await owner.next() == (b"smessage", CHANNEL, b"d")


async def with_a_message_that_waits(
    address: Moving, owner: Owner, redis: RedisConnection, until: Until
) -> Subscriber:
    """Return the subscriber of an owner that does not take its only message."""
    await address.arrive()
    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)
    subscriber = owner.subscriber
    assert subscriber is not None
    owner.takes = 0
    await redis.call("SPUBLISH", CHANNEL, "a")
    await until(lambda: subscriber._replies)
    return subscriber


async def test_nothing_is_read_while_messages_wait(
    address: Moving, owner: Owner, redis: RedisConnection, until: Until
) -> None:
    subscriber = await with_a_message_that_waits(address, owner, redis, until)

    for _ in range(20):
        await redis.call("SPUBLISH", CHANNEL, "b")
    assert len(subscriber._replies) == 1

    owner.takes = 1_000
    subscriber.go_on()
    arrived = [await owner.next() for _ in range(21)]
    assert arrived[1:] == [(b"smessage", CHANNEL, b"b")] * 20


async def test_messages_that_wait_are_dropped_with_their_connection(
    address: Moving, owner: Owner, redis: RedisConnection, until: Until
) -> None:
    subscriber = await with_a_message_that_waits(address, owner, redis, until)

    subscriber.reconnect()

    assert await owner.next() == "closed"
    owner.takes = 1_000
    assert await owner.next() == (b"ssubscribe", CHANNEL, 1)


async def test_a_store_whose_messages_wait_is_not_silent(
    address: Moving,
    owner: Owner,
    redis: RedisConnection,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber_module, "WATCH_S", 0.01)
    subscriber = await with_a_message_that_waits(address, owner, redis, until)
    before = owner.watches

    monkeypatch.setattr(subscriber_module, "SILENCE_S", 0)
    await until(lambda: owner.watches > before + 3)
    monkeypatch.undo()

    owner.takes = 1_000
    subscriber.go_on()
    assert await owner.next() == (b"smessage", CHANNEL, b"a")

"""A connection for subscriptions: kept open, and what is reported of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamer.errors import StoreUnavailable
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

    def on_open(self) -> None:
        assert self.subscriber is not None
        self.subscriber.send(("SSUBSCRIBE", CHANNEL))

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        self.seen.put_nowait((kind, channel, payload))

    def on_watch(self, now_s: float) -> None:
        pass

    def on_closed(self) -> None:
        self.seen.put_nowait("closed")

    async def next(self) -> object:
        async with asyncio.timeout(20):
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

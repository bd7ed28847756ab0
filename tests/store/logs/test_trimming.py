"""How a full store gets space: by the retention, and by trimming all logs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamer.core.streams.subscription import Start
from streamer.errors import StoreFull
from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.logs.trimming import Trimmed, trim_logs
from streamer.store.server.embedded import Embedded

NOON_US = 1_800_000_000_000_000
DAY_US = DAY_MS * 1_000

ANN = Log(App("one"), Player("ann"))
BEN = Log(App("other"), Player("ben"))


class Clock:
    def __init__(self) -> None:
        self.us = NOON_US

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def redis(
    start_store: Callable[[], Awaitable[Embedded]],
) -> AsyncIterator[RedisConnection]:
    """Connect to a store of its own, which the test may fill."""
    redis = RedisConnection((await start_store()).url)
    yield redis
    await redis.close()


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


async def kept(redis: RedisConnection, log: Log) -> int:
    return int(await redis.call("XLEN", keys_of().inbox(log).log))


async def used(redis: RedisConnection) -> int:
    info = (await redis.call("INFO", "memory")).decode()
    return int(info.split("used_memory:")[1].split()[0])


@pytest.mark.row("F13")
async def test_a_page_frees_what_is_past_the_retention_on_a_full_store(
    redis: RedisConnection, inbox: Inbox, clock: Clock
) -> None:
    for _ in range(40):
        await inbox.append(ANN, [b"x" * 50_000])
    await redis.call("CONFIG", "SET", "maxmemory", await used(redis) - 200_000)
    with pytest.raises(StoreFull):
        await inbox.append(ANN, [b"y"])

    clock.us += 91 * DAY_US
    page = await inbox.page(ANN, count=10)

    assert page.entries == []
    assert await kept(redis, ANN) == 0
    # There is space again, and the offsets continue.
    assert (await inbox.append(ANN, [b"y"])).stored[0].offset == 41


@pytest.mark.row("F13")
async def test_a_full_store_is_trimmed_by_age_and_app(
    redis: RedisConnection, inbox: Inbox, clock: Clock
) -> None:
    for log in (ANN, BEN):
        await inbox.append(log, [b"old", b"old"])
    clock.us += 10 * DAY_US
    for log in (ANN, BEN):
        await inbox.append(log, [b"new"])
    await redis.call("CONFIG", "SET", "maxmemory", "1")
    before_us = NOON_US + DAY_US

    assert await trim_logs(redis, before_us=before_us, app=BEN.app) == Trimmed(2, 1)
    assert (await kept(redis, ANN), await kept(redis, BEN)) == (3, 1)
    assert await trim_logs(redis, before_us=before_us) == Trimmed(2, 1)
    assert await trim_logs(redis, before_us=before_us) == Trimmed(0, 0)

    page = await inbox.page(ANN, count=10)
    assert page.entries is not None
    assert [one.entry.fragment for one in page.entries] == [b"new"]
    assert page.unread == 1


async def test_a_reader_of_a_trimmed_log_gets_a_gap(
    redis: RedisConnection, inbox: Inbox, clock: Clock
) -> None:
    first = (await inbox.append(ANN, [b"a", b"b", b"c"])).stored[0]
    clock.us += DAY_US
    await inbox.append(ANN, [b"d"])

    await trim_logs(redis, before_us=clock.us)

    read = await inbox.read_after(ANN, first, count=10)
    assert read.history.gap is not None
    late = await inbox.read_after(ANN, Start.EARLIEST, count=10)
    assert [entry.fragment for entry in late.history.entries] == [b"d"]

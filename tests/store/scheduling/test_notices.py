"""Notices of the timetable, from the scripts to a handler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from streamer.core.schedule import Schedule, ScheduleState
from streamer.model import App, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.keys import BUCKETS, bucket_of
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.notices import Notices
from streamer.store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ...conftest import Until

APP = App("app")
NOON = 1_800_000_000_000
BUCKET = bucket_of(APP, "ann")


class Handler:
    def __init__(self) -> None:
        self.notices: asyncio.Queue[tuple[str, int, int]] = asyncio.Queue()
        self.subscribed: asyncio.Queue[int] = asyncio.Queue()

    def on_due(self, bucket: int, due_ms: int) -> None:
        self.notices.put_nowait(("due", bucket, due_ms))

    def on_sending(self, bucket: int) -> None:
        self.notices.put_nowait(("sending", bucket, 0))

    def on_subscribed(self, bucket: int) -> None:
        self.subscribed.put_nowait(bucket)

    async def next(self) -> tuple[str, int, int]:
        async with asyncio.timeout(60):
            return await self.notices.get()

    async def all_subscribed(self) -> None:
        async with asyncio.timeout(60):
            buckets = [await self.subscribed.get() for _ in range(BUCKETS)]
        assert sorted(buckets) == list(range(BUCKETS))


@pytest.fixture
def timetable(redis: RedisConnection) -> Timetable:
    return Timetable(redis, LogSettings(clock_us=lambda: NOON * 1_000))


@pytest.fixture
async def notices(store_url: str) -> Notices:
    return Notices(store_url, name="notices-test")


@pytest.fixture
async def handler(notices: Notices) -> AsyncIterator[Handler]:
    handler = Handler()
    running = asyncio.create_task(notices.run(handler))
    await handler.all_subscribed()
    assert notices.complete
    yield handler
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def schedule(due_ms: int) -> Schedule:
    return Schedule(
        APP,
        new_schedule_id(BUCKET),
        ScheduleState.PENDING,
        due_ms,
        0,
        b'"body":"b"}',
        player=Player("ann"),
        total=1,
    )


async def test_a_schedule_that_is_the_first_of_its_bucket_is_announced(
    timetable: Timetable, handler: Handler
) -> None:
    for due_ms in (NOON + 50, NOON + 90, NOON + 10):
        await timetable.add(schedule(due_ms))

    assert await handler.next() == ("due", BUCKET, NOON + 50)
    assert await handler.next() == ("due", BUCKET, NOON + 10)


async def test_a_schedule_that_is_moved_forward_is_announced(
    timetable: Timetable, handler: Handler
) -> None:
    added = schedule(NOON + 50)
    await timetable.add(added)
    await handler.next()

    await timetable.cancel(ScheduleRef.of(added), due_ms=NOON + 20)

    assert await handler.next() == ("due", BUCKET, NOON + 20)


async def test_an_audience_that_is_being_sent_is_announced(
    timetable: Timetable, handler: Handler
) -> None:
    added = schedule(NOON - 1)._replace(player=None)
    await timetable.add(added)
    await handler.next()

    assert await timetable.firing.begin_sending([ScheduleRef.of(added)]) == [True]

    assert await handler.next() == ("sending", BUCKET, 0)


async def test_a_lost_connection_is_replaced_and_every_bucket_is_confirmed_again(
    redis: RedisConnection, timetable: Timetable, handler: Handler, notices: Notices
) -> None:
    clients = (await redis.call("CLIENT", "LIST")).decode().splitlines()
    (mine,) = [line for line in clients if "name=notices-test" in line]

    await redis.call("CLIENT", "KILL", "ID", mine.split()[0].removeprefix("id="))
    await handler.all_subscribed()
    await timetable.add(schedule(NOON + 50))

    assert await handler.next() == ("due", BUCKET, NOON + 50)
    assert notices.complete


async def test_a_store_that_is_unreachable_is_reported(
    until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    faults = StoreFaults("nowhere")
    notices = Notices("unix:///nowhere", faults=faults)
    running = asyncio.create_task(notices.run(Handler()))

    await until(lambda: faults.reason is not None)

    running.cancel()
    await asyncio.wait([running])
    assert faults.is_failing("connection for notices of schedules")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "the store at nowhere is unavailable: No such"
    )


async def test_a_store_that_refuses_the_channel_adds_the_schedule_all_the_same(
    redis: RedisConnection, store_url: str, timetable: Timetable
) -> None:
    await redis.call("ACL", "SETUSER", "mute", "on", ">pw", "~*", "+@all")
    path = store_url.removeprefix("unix://")
    limited = RedisConnection(f"unix://mute:pw@{path}")
    try:
        added = await Timetable(
            limited, LogSettings(clock_us=lambda: NOON * 1_000)
        ).add(schedule(NOON - 1))
    finally:
        await limited.close()
        await redis.call("ACL", "DELUSER", "mute")

    assert added.added
    assert limited.unannounced.count == 1
    assert len(await timetable.firing.due(NOON, limit=10)) == 1

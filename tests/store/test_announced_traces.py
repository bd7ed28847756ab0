"""A trace in announcements: of appends, of schedules, of what is not stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamer.core.trace_context import TraceContext
from streamer.model import Log, Player, notification_json
from streamer.store.client.connection import RedisConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.presence.leases import Leases
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import Timetable

from ..conftest import Until
from .recording import RecordingHandler
from .scheduling.timetables import APP, audience, reminder

TRACE = TraceContext(
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "game=a:1,b=2"
)
LOG = Log(APP, Player("p"))
EPHEMERAL = notification_json("f" * 36, 0, b'"title":"t"}')


@pytest.fixture
async def recorder(store_url: str, until: Until) -> AsyncIterator[RecordingHandler]:
    """What a node hears of `LOG`."""
    handler = RecordingHandler()
    pubsub = PubSub(store_url, handler)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    await pubsub.subscribe(LOG)
    yield handler
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(
    "draft",
    [
        Draft(b"plain"),
        Draft(b"may end", expires_ms=2**50),
        Draft(b"replaces", collapse_key="k"),
        Draft(b"for one device", device="latest"),
    ],
    ids=lambda draft: draft.fragment.decode(),
)
async def test_an_entry_is_announced_with_the_trace_and_stored_without(
    redis: RedisConnection, recorder: RecordingHandler, until: Until, draft: Draft
) -> None:
    inbox = Inbox(redis)
    await Leases(redis, leases_max=1).beat()

    for trace in (None, TRACE):
        await inbox.append(LOG, [draft], trace=trace)

    await until(lambda: len(recorder.traces) == 2)
    assert recorder.traces == [None, TRACE]
    assert [it.fragment for it in recorder.entries] == [draft.fragment] * 2
    stored = await redis.call("XRANGE", keys_of().inbox(LOG).log, "-", "+")
    assert TRACE.parent not in repr(stored)


@pytest.mark.parametrize("to_latest", [False, True])
async def test_a_schedule_is_announced_with_the_trace_of_its_sending(
    timetable: Timetable,
    redis: RedisConnection,
    recorder: RecordingHandler,
    until: Until,
    to_latest: bool,
) -> None:
    created = TRACE._replace(state="")
    await Leases(redis, leases_max=1).beat()
    schedule = reminder("p", trace=created, to_latest=to_latest)
    await timetable.add(schedule)
    stored = await timetable.get(APP, schedule.id)
    assert stored is not None
    assert stored.trace == created

    assert await timetable.firing.fire_each([stored], traces={stored.id: TRACE}) == [1]

    await until(lambda: recorder.traces)
    assert recorder.traces == [TRACE]


@pytest.mark.parametrize("to_latest", [False, True])
async def test_an_audience_is_announced_with_the_trace_of_its_sending(
    timetable: Timetable,
    redis: RedisConnection,
    recorder: RecordingHandler,
    until: Until,
    to_latest: bool,
) -> None:
    await Leases(redis, leases_max=1).beat()
    schedule = await audience(timetable, "p", to_latest=to_latest)
    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    (bucket,) = schedule.buckets

    served = await timetable.recipients.deliver(
        schedule, bucket, [Player("p")], trace=TRACE
    )

    assert served == 1
    await until(lambda: recorder.traces)
    assert recorder.traces == [TRACE]


async def test_an_ephemeral_notification_is_announced_with_the_trace(
    redis: RedisConnection, recorder: RecordingHandler, until: Until
) -> None:
    inbox = Inbox(redis)
    other = EPHEMERAL.replace(b"f", b"e")

    await inbox.announce_ephemeral([LOG], EPHEMERAL, trace=TRACE)
    await inbox.announce_ephemeral([LOG], EPHEMERAL)
    # Another node's comes in between.
    await redis.call("SPUBLISH", keys_of().channel(LOG), f"traced e {TRACE.fields}")
    await inbox.announce_ephemeral([LOG], other)

    await until(lambda: len(recorder.ephemeral) == 3)
    assert recorder.ephemeral == [(EPHEMERAL, TRACE), (EPHEMERAL, None), (other, None)]


async def test_traces_of_what_never_comes_are_forgotten(
    redis: RedisConnection, recorder: RecordingHandler, until: Until
) -> None:
    inbox, channel = Inbox(redis), keys_of().channel(LOG)
    for i in range(500):
        await redis.call("SPUBLISH", channel, f"traced {i} {TRACE.fields}")
    first = notification_json("0", 0, b"}")

    await inbox.announce_ephemeral([LOG], EPHEMERAL, trace=TRACE)
    await inbox.announce_ephemeral([LOG], first)

    await until(lambda: len(recorder.ephemeral) == 2)
    assert recorder.ephemeral == [(EPHEMERAL, TRACE), (first, None)]


async def test_a_node_passes_over_fields_that_it_does_not_know(
    redis: RedisConnection, recorder: RecordingHandler, until: Until
) -> None:
    channel = keys_of().channel(LOG)

    await redis.call("SPUBLISH", channel, "later kind of announcement")
    await redis.call("SPUBLISH", channel, "with later=1,device=d 1 2 3 4 text")

    await until(lambda: recorder.entries)
    assert [(it.device, it.fragment) for it in recorder.entries] == [("d", b"text")]
    assert recorder.traces == [None]

"""Which schedules are due, and firing them, on a real server with the test's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from streamer.core.schedule import LATE_AFTER_MS, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.model import App, Log, Player, iso_time
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import BUCKETS, keys_of
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.mutes import Mutes
from streamer.store.logs.settings import DAY_MS
from streamer.store.presence.devices import Devices
from streamer.store.presence.leases import Leases
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON, Clock
from .timetables import APP, FRAGMENT, audience, received, reminder, serve, state_of


async def test_nothing_fires_before_its_time(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    schedule = reminder("p", NOON + 1)
    await timetable.add(schedule)

    assert await timetable.firing.fire([schedule]) == 0
    clock.now_ms += 1
    assert await timetable.firing.fire([schedule]) == 1

    assert await received(inbox, "p") == [FRAGMENT]


async def test_firing_again_does_nothing(timetable: Timetable, inbox: Inbox) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)

    assert [await timetable.firing.fire([schedule]) for _ in range(3)] == [1, 0, 0]

    assert await received(inbox, "p") == [FRAGMENT]
    found = await timetable.get(APP, schedule.id)
    assert found is not None
    assert (found.state, found.delivered, found.settled_ms) == (
        ScheduleState.SENT,
        1,
        NOON,
    )


async def test_due_schedules_are_returned_in_order(
    timetable: Timetable, clock: Clock
) -> None:
    made = [reminder("p", NOON + i) for i in (3, 1, 2, 5)]
    for schedule in made:
        await timetable.add(schedule)

    dues = await timetable.firing.due(NOON + 3, limit=10)

    assert dues == [ScheduleRef.of(made[i]) for i in (1, 2, 0)]
    assert await timetable.firing.due(NOON + 3, limit=1) == dues[:1]


async def test_due_schedules_of_all_buckets_are_returned(
    timetable: Timetable, redis: RedisConnection
) -> None:
    made = [reminder(f"p{i}") for i in range(600)]
    await asyncio.gather(*(timetable.add(schedule) for schedule in made))

    dues = await timetable.firing.due(NOON, limit=600 * BUCKETS)

    assert {due.id for due in dues} == {schedule.id for schedule in made}
    assert {due.bucket for due in dues} > set(range(0, BUCKETS, 64))
    assert await redis.call("ZCARD", keys_of().due(dues[0].bucket, APP)) > 0


async def test_apps_in_a_bucket_have_equal_shares(
    timetable: Timetable,
) -> None:
    made = [reminder("p", NOON - i) for i in range(6)]
    # An id contains its bucket, whatever the player.
    other = reminder("p", app=App("other"))
    await timetable.add_many([*made, other])

    dues = await timetable.firing.due(NOON, limit=4)

    assert dues == [
        ScheduleRef.of(made[5]),
        ScheduleRef.of(made[4]),
        ScheduleRef.of(other),
    ]


async def test_an_app_is_read_when_its_first_schedule_is_due(
    timetable: Timetable, redis: RedisConnection
) -> None:
    first, second = reminder("p", NOON + 10), reminder("p", NOON + 20)
    await timetable.add_many([second, first])
    apps = keys_of().due_apps(ScheduleRef.of(first).bucket)
    assert await redis.call("ZSCORE", apps, APP) == str(NOON + 10).encode()

    await timetable.cancel(ScheduleRef.of(first), due_ms=NOON + 30)
    assert await redis.call("ZSCORE", apps, APP) == str(NOON + 20).encode()
    await timetable.cancel(ScheduleRef.of(second))
    await timetable.cancel(ScheduleRef.of(first))

    assert await redis.call("EXISTS", apps) == 0


async def test_an_app_without_pending_schedules_is_not_read(
    timetable: Timetable, redis: RedisConnection
) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)

    await timetable.firing.fire([schedule])

    assert (
        await redis.call("EXISTS", keys_of().due_apps(ScheduleRef.of(schedule).bucket))
        == 0
    )


async def test_a_late_notification_says_when_it_was_due(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    for i, late_ms in enumerate((LATE_AFTER_MS, LATE_AFTER_MS + 1)):
        schedule = reminder(f"p{i}", NOON)
        clock.now_ms = NOON
        await timetable.add(schedule)
        clock.now_ms = NOON + late_ms
        await timetable.firing.fire([schedule])

    assert await received(inbox, "p0") == [FRAGMENT]
    due_at = f'"due_at":"{iso_time(NOON)}"'.encode()
    assert await received(inbox, "p1") == [due_at + b"," + FRAGMENT]


async def test_a_schedule_without_a_record_leaves_the_timetable(
    timetable: Timetable, redis: RedisConnection, inbox: Inbox
) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)
    due = ScheduleRef.of(schedule)
    await redis.call("DEL", keys_of().schedule(due.bucket, APP, due.id))

    await timetable.firing.fire([schedule])

    assert await timetable.firing.due(NOON, limit=9) == []
    assert await received(inbox, "p") == []


async def test_a_sent_schedule_is_kept_for_90_days(
    timetable: Timetable, redis: RedisConnection
) -> None:
    schedule = reminder("p", NOON)
    await timetable.add(schedule)
    due = ScheduleRef.of(schedule)
    record = keys_of().schedule(due.bucket, APP, due.id)
    assert await redis.call("PTTL", record) == -1

    await timetable.firing.fire([schedule])

    assert 0 <= 90 * DAY_MS - await redis.call("PTTL", record) < 60_000


async def test_a_cancelled_schedule_does_not_begin(
    timetable: Timetable,
) -> None:
    schedule = await audience(timetable, "p")
    await timetable.cancel(ScheduleRef.of(schedule))

    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])

    assert await timetable.firing.sending() == []
    assert await state_of(timetable, schedule) is ScheduleState.CANCELLED


# The properties of a schedule, for one player and for an audience.


async def send_to(
    timetable: Timetable, players: Sequence[str], *, alone: bool, **fields: Any
) -> None:
    """Send to players: as one audience, or one schedule each."""
    if alone:
        each = [reminder(player, **fields) for player in players]
        for schedule in each:
            await timetable.add(schedule)
        await timetable.firing.fire(each)
    else:
        schedule = await audience(timetable, *players, **fields)
        await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
        await serve(timetable, schedule)


@pytest.mark.parametrize("alone", [True, False])
async def test_fired_entries_replace_and_expire_as_published_ones(
    timetable: Timetable, inbox: Inbox, clock: Clock, alone: bool
) -> None:
    log = Log(APP, Player("p"))
    await inbox.append(log, [Draft(b"1", collapse_key="k")])

    await send_to(timetable, ["p"], alone=alone, collapse_key="k", expires_ms=NOON + 5)

    page = await inbox.page(log, count=9)
    assert [e.entry.fragment for e in page.entries or ()] == [FRAGMENT]
    clock.now_ms += 5
    assert (await inbox.page(log, count=9)).entries == []


@pytest.mark.parametrize("alone", [True, False])
async def test_a_muted_type_is_not_sent(
    timetable: Timetable, inbox: Inbox, redis: RedisConnection, alone: bool
) -> None:
    await Mutes(redis).mute(Log(APP, Player("p")), "news")

    await send_to(timetable, ["p", "q"], alone=alone, type="news")
    await send_to(timetable, ["p", "q"], alone=alone, type="mail")

    assert await received(inbox, "p") == [FRAGMENT]
    assert await received(inbox, "q") == [FRAGMENT] * 2


@pytest.mark.parametrize("alone", [True, False])
async def test_a_fired_entry_names_the_device_used_last(
    timetable: Timetable, inbox: Inbox, redis: RedisConnection, alone: bool
) -> None:
    log = Log(APP, Player("p"))
    leases = Leases(redis, leases_max=5)
    await leases.acquire(log, "1")
    await Devices(redis, leases.node).note_use(log, "1", "phone")

    await send_to(timetable, ["p", "q"], alone=alone, to_latest=True)
    await inbox.append(log, [Draft(b"2", device="latest"), b"3"])

    read = await inbox.read_after(log, Start.EARLIEST, count=9)
    assert [e.device for e in read.history.entries] == ["phone", "phone", ""]
    read = await inbox.read_after(Log(APP, Player("q")), Start.EARLIEST, count=9)
    assert [e.device for e in read.history.entries] == [""]


async def test_a_muted_schedule_counts_no_recipient(
    timetable: Timetable, redis: RedisConnection
) -> None:
    await Mutes(redis).mute(Log(APP, Player("p")), "news")
    schedule = reminder("p", type="news")
    await timetable.add(schedule)

    assert await timetable.firing.fire([schedule]) == 1

    found = await timetable.get(APP, schedule.id)
    assert found is not None
    assert (found.state, found.delivered, found.total) == (ScheduleState.SENT, 0, 1)

"""Adding, moving and cancelling schedules, on a real server with the test's clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import pytest

from streamer.core.schedule import Schedule, ScheduleState
from streamer.model import App, Log, Player
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import bucket_of, keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import ChangeResult, Timetable

from ...clock import NOON, Clock
from .timetables import (
    APP,
    FRAGMENT,
    audience,
    campaign,
    received,
    reminder,
    serve,
    state_of,
)

T = TypeVar("T")


@pytest.fixture
async def other_redis(store_url: str) -> AsyncIterator[RedisConnection]:
    redis = redis_at(store_url)
    yield redis
    await redis.close()


async def test_a_schedule_is_read_as_it_was_added(
    timetable: Timetable, clock: Clock
) -> None:
    schedule = reminder("p", NOON + 5, source="native", label="l", spread_ms=7)
    schedule = schedule._replace(
        type="t", expires_ms=NOON + 9, ttl_ms=4, collapse_key="k", to_latest=True
    )

    assert (await timetable.add(schedule)).created_ms == NOON
    clock.now_ms += 1_000

    assert await timetable.get(APP, schedule.id) == schedule._replace(created_ms=NOON)


async def test_adding_again_changes_nothing(timetable: Timetable) -> None:
    first = reminder("p", NOON + 5)
    await timetable.add(first)

    again = await timetable.add(first._replace(due_ms=NOON + 9, fragment=b"x"))

    assert not again.added
    assert not again.full
    found = await timetable.get(APP, first.id)
    assert found is not None
    assert (found.due_ms, found.fragment) == (NOON + 5, FRAGMENT)


async def test_another_app_does_not_see_it(timetable: Timetable) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)

    assert await timetable.get(App("other"), schedule.id) is None


async def test_a_page_is_sorted_by_creation_time(
    timetable: Timetable, clock: Clock
) -> None:
    made = []
    for i in range(7):
        clock.now_ms = NOON + i // 3
        made.append(reminder(f"p{i}", NOON + 100 - i))
        await timetable.add(made[-1])

    seen: list[Schedule] = []
    while page := await timetable.page(
        APP, after=(seen[-1].created_ms, seen[-1].id) if seen else (0, ""), limit=2
    ):
        assert len(page) <= 2
        seen += page

    assert {s.id for s in seen} == {s.id for s in made}
    assert len(seen) == 7
    assert [(s.created_ms, s.id) for s in seen] == sorted(
        (s.created_ms, s.id) for s in seen
    )


async def test_players_and_labels_with_colons_have_separate_lists() -> None:
    names = {
        keys_of().named(Log(APP, Player(player)), label)
        for player, label in (("a:b", "c"), ("a", "b:c"), ("a", "c"), ("c", "a:b"))
    }

    assert len(names) == 4


# Cancelling and moving.


async def test_a_cancelled_schedule_never_fires(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    schedule = reminder("p", NOON + 1)
    await timetable.add(schedule)

    assert await timetable.cancel(ScheduleRef.of(schedule)) == ChangeResult(
        ScheduleState.CANCELLED, True
    )
    clock.now_ms += DAY_MS

    assert await timetable.firing.fire([schedule]) == 0
    assert await received(inbox, "p") == []
    assert await timetable.firing.due(clock.now_ms, limit=9) == []


async def test_cancelling_again_changes_nothing(timetable: Timetable) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)
    await timetable.cancel(ScheduleRef.of(schedule))

    assert await timetable.cancel(ScheduleRef.of(schedule)) == ChangeResult(
        ScheduleState.CANCELLED, False
    )


async def test_a_sent_schedule_is_not_cancelled(timetable: Timetable) -> None:
    schedule = reminder("p")
    await timetable.add(schedule)
    await timetable.firing.fire([schedule])

    assert await timetable.cancel(ScheduleRef.of(schedule)) == ChangeResult(
        ScheduleState.SENT, False
    )


async def test_a_missing_schedule_is_not_cancelled(timetable: Timetable) -> None:
    assert await timetable.cancel(ScheduleRef.of(reminder("p"))) == ChangeResult(
        None, False
    )


@pytest.mark.parametrize("by_ms", [-1, 60_000])
async def test_a_moved_schedule_fires_at_its_new_time(
    timetable: Timetable, inbox: Inbox, clock: Clock, by_ms: int
) -> None:
    schedule = reminder("p", NOON + 100)
    await timetable.add(schedule)

    moved = await timetable.cancel(ScheduleRef.of(schedule), due_ms=NOON + 100 + by_ms)

    assert moved == ChangeResult(ScheduleState.PENDING, True)
    clock.now_ms = NOON + 100 + by_ms - 1
    assert await timetable.firing.fire([schedule]) == 0
    clock.now_ms += 1
    assert await timetable.firing.fire([schedule]) == 1
    assert await received(inbox, "p") == [FRAGMENT]


async def test_a_concurrent_cancellation_and_send_agree(
    timetable: Timetable, other_redis: RedisConnection, inbox: Inbox, clock: Clock
) -> None:
    """E2: either cancelled or delivered, and the result says which."""
    other = Timetable(other_redis, LogSettings(clock_us=clock))
    made = [reminder(f"p{i}") for i in range(300)]
    await asyncio.gather(*(timetable.add(schedule) for schedule in made))

    await asyncio.gather(other.firing.fire([]), other_redis.call("PING"))
    few = asyncio.Semaphore(8)

    async def after_a_while(step: Awaitable[T]) -> T:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        return await step

    async def race(schedule: Schedule) -> tuple[bool, bool]:
        async with few:
            (_, cancelled, _), fired = await asyncio.gather(
                after_a_while(timetable.cancel(ScheduleRef.of(schedule))),
                after_a_while(other.firing.fire([schedule])),
            )
        return cancelled, bool(fired)

    outcomes = await asyncio.gather(*map(race, made))

    assert {True, False} == {cancelled for cancelled, _ in outcomes}
    for schedule, (cancelled, fired) in zip(made, outcomes, strict=True):
        assert cancelled is not fired
        assert schedule.player is not None
        assert len(await received(inbox, schedule.player)) == int(fired)
        state = ScheduleState.SENT if fired else ScheduleState.CANCELLED
        assert await state_of(timetable, schedule) is state


async def test_a_schedule_that_is_being_sent_is_not_cancelled(
    timetable: Timetable,
) -> None:
    schedule = await audience(timetable, "p")
    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])

    assert await timetable.cancel(ScheduleRef.of(schedule)) == ChangeResult(
        ScheduleState.SENDING, False, begun=True
    )


# The slots of a campaign.


async def test_the_slots_of_a_campaign_are_limited(timetable: Timetable) -> None:
    for _ in range(3):
        _, has_slot = await campaign(timetable, slots_max=3)
        assert has_slot

    fourth, has_slot = await campaign(timetable, slots_max=3)

    assert not has_slot
    assert await timetable.get(APP, fourth.id) is None
    _, other_has_slot = await campaign(timetable, name="d", slots_max=3)
    assert other_has_slot


async def test_only_cancelling_frees_a_slot(
    timetable: Timetable,
) -> None:
    first, _ = await campaign(timetable, slots_max=1)
    assert not (await campaign(timetable, slots_max=1))[1]

    await timetable.cancel(ScheduleRef.of(first), campaign="c")
    second, has_slot = await campaign(timetable, slots_max=1)
    assert has_slot
    # It was cancelled before, so there is no second slot to free.
    await timetable.cancel(ScheduleRef.of(first), campaign="c")
    assert not (await campaign(timetable, slots_max=1))[1]

    await timetable.firing.begin_sending([ScheduleRef.of(second)])
    await timetable.cancel(ScheduleRef.of(second), campaign="c")
    await serve(timetable, second)
    await timetable.cancel(ScheduleRef.of(second), campaign="c")
    assert not (await campaign(timetable, slots_max=1))[1]


async def test_of_concurrent_schedules_one_gets_the_last_slot(
    timetable: Timetable, other_redis: RedisConnection, clock: Clock
) -> None:
    other = Timetable(other_redis, LogSettings(clock_us=clock))
    for _ in range(2):
        await campaign(timetable, slots_max=3)

    raced = await asyncio.gather(
        *(campaign((timetable, other)[i % 2], slots_max=3) for i in range(30))
    )

    assert sum(has_slot for _, has_slot in raced) == 1
    listed = await timetable.list_index(
        keys_of().sends(APP, "c"), bucket=bucket_of(APP, "c"), app=APP
    )
    assert len(listed) == 3

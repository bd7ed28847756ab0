"""How many schedules of an app are pending, being sent and late."""

from __future__ import annotations

from streamer.core.schedule import LATE_AFTER_MS
from streamer.model import App
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import BUCKETS, bucket_of
from streamer.store.scheduling.inspection import DueCounts, count_due, first_due
from streamer.store.scheduling.schedule_records import ScheduleRef
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON
from .timetables import APP, reminder


async def test_schedules_are_counted_by_how_they_stand(
    redis: RedisConnection, timetable: Timetable
) -> None:
    late_ms = NOON - LATE_AFTER_MS - 1
    await timetable.add(reminder("ann", NOON + 60_000))
    await timetable.add(reminder("bob", late_ms))
    await timetable.add(reminder("eve", late_ms, app=App("other")))
    for member in (f"{APP}:x", "other:x", f"{APP}s:x"):
        await redis.call("ZADD", redis.keys.sending(7), NOON, member, write=True)

    assert await count_due(redis, APP, now_ms=NOON) == DueCounts(2, 1, 1, 0)
    assert await count_due(redis, App("none"), now_ms=NOON) == DueCounts(0, 0, 0, 0)


async def test_a_damaged_key_counts_as_empty(
    redis: RedisConnection, timetable: Timetable
) -> None:
    await timetable.add(reminder("ann", NOON))
    damaged = (bucket_of(APP, "ann") + 1) % BUCKETS
    await redis.call("SET", redis.keys.due(damaged, APP), "x", write=True)
    await redis.call("SET", redis.keys.sending(damaged), "x", write=True)

    assert await count_due(redis, APP, now_ms=NOON) == DueCounts(1, 0, 0, 0)


async def test_the_first_that_are_due_follow_those_that_are_being_sent(
    redis: RedisConnection, timetable: Timetable
) -> None:
    third, first, second = (
        reminder(player, NOON + due)
        for player, due in (("ann", 3), ("bob", 1), ("eve", 2))
    )
    sending = reminder("kim")
    for schedule in (third, first, second, reminder("ann", app=App("other"))):
        await timetable.add(schedule)
    ref = ScheduleRef.of(sending)
    key = redis.keys.sending(ref.bucket)
    for member in (f"{APP}:{sending.id}", "no member"):
        await redis.call("ZADD", key, NOON, member, write=True)

    assert await first_due(redis, APP, count=2) == [
        ref,
        ScheduleRef.of(first),
        ScheduleRef.of(second),
    ]

"""Recipients on a real server: stored, served once each, and counted."""

from __future__ import annotations

from streamer.core.schedule import AHEAD_MAX_MS, Schedule, ScheduleState
from streamer.model import Player
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import bucket_of, keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS
from streamer.store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON
from .timetables import APP, FRAGMENT, audience, campaign, received, serve


async def test_each_recipient_is_served_once(
    timetable: Timetable, inbox: Inbox
) -> None:
    names = [f"p{i}" for i in range(50)]
    schedule = await audience(timetable, *names)

    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    assert await timetable.firing.sending() == [ScheduleRef.of(schedule)]
    await serve(timetable, schedule, limit=3)

    assert [await received(inbox, name) for name in names] == [[FRAGMENT]] * 50
    found = await timetable.get(APP, schedule.id)
    assert found is not None
    assert (found.state, found.delivered, found.total) == (ScheduleState.SENT, 50, 50)
    assert await timetable.firing.sending() == []


async def test_recipients_are_stored_once(timetable: Timetable) -> None:
    due = ScheduleRef(1, APP, new_schedule_id(1))

    first = await timetable.recipients.enlist(due, [Player("a"), Player("b")])
    again = await timetable.recipients.enlist(due, [Player("a"), Player("b")])

    assert first == again
    schedule = Schedule(APP, due.id, ScheduleState.PENDING, NOON, 0, FRAGMENT)
    listed = []
    for bucket in first:
        listed += (await timetable.recipients.next_players(schedule, bucket, limit=9))[
            0
        ]
    assert sorted(listed) == ["a", "b"]


async def test_only_the_next_recipients_are_served(
    timetable: Timetable, inbox: Inbox
) -> None:
    schedule = await audience(timetable, "p")
    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    (bucket,) = schedule.buckets

    for wrong in ([Player("q")], [Player("p"), Player("q")]):
        assert await timetable.recipients.deliver(schedule, bucket, wrong) == 0
    assert await timetable.recipients.deliver(schedule, bucket, [Player("p")]) == 1
    # A scheduler that was suspended in between continues.
    assert await timetable.recipients.deliver(schedule, bucket, [Player("p")]) == 0

    assert await received(inbox, "p") == [FRAGMENT]


async def test_a_bucket_is_counted_once(timetable: Timetable) -> None:
    schedule = await audience(timetable, *(f"p{i}" for i in range(20)))
    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    bucket = schedule.buckets[0]

    for _ in range(2):
        await timetable.recipients.finish(schedule, {bucket: 5})

    found = await timetable.get(APP, schedule.id)
    assert found is not None
    assert found.delivered == 5
    assert await timetable.recipients.served_buckets(schedule) == {bucket}


async def test_recipients_outlive_a_schedule_and_an_outage(
    timetable: Timetable, redis: RedisConnection
) -> None:
    schedule = await audience(timetable, "p")
    (bucket,) = schedule.buckets
    listed = keys_of().recipients(bucket, APP, schedule.id)
    await redis.call("PEXPIRE", listed, 1_000)

    await timetable.recipients.renew(schedule)
    assert await redis.call("PTTL", listed) > AHEAD_MAX_MS + 80 * DAY_MS

    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    await serve(timetable, schedule)
    assert 0 < await redis.call("PTTL", listed) <= DAY_MS


async def test_active_cards_are_read_when_sending(
    timetable: Timetable, redis: RedisConnection, inbox: Inbox
) -> None:
    schedule, _ = await campaign(timetable)
    statuses = ("active", "draft", "revoked", "expired", "removed", "moved")
    for status in statuses:
        key = keys_of().cards(bucket_of(APP, status), APP, "c")
        await redis.call("HSET", key, f"card-{status}", f"{status} 1 {status}")
    # A second card of one player, and a player whose name looks like a record.
    key = keys_of().cards(bucket_of(APP, "active"), APP, "c")
    await redis.call("HSET", key, "twin", "active 3 active")
    key = keys_of().cards(bucket_of(APP, "active 1 x"), APP, "c")
    await redis.call("HSET", key, "odd", "active 1 active 1 x")

    await timetable.firing.begin_sending([ScheduleRef.of(schedule)])
    await timetable.recipients.enlist_cards(schedule, schedule.buckets)
    await serve(timetable, schedule)

    assert [await received(inbox, s) for s in statuses] == [[FRAGMENT], *[[]] * 5]
    assert await received(inbox, "active 1 x") == [FRAGMENT]
    found = await timetable.get(APP, schedule.id)
    assert found is not None
    assert (found.state, found.delivered) == (ScheduleState.SENT, 2)


async def test_a_postponed_recipient_is_the_last(
    timetable: Timetable,
) -> None:
    near = [f"n{i}" for i in range(999) if bucket_of(APP, f"n{i}") == 7][:3]
    schedule = await audience(timetable, *near)
    recipients = timetable.recipients

    await recipients.postpone(schedule, 7, Player(near[0]))
    await recipients.postpone(schedule, 7, Player("not the next"))

    players, _ = await recipients.next_players(schedule, 7, limit=9)
    assert players == [near[1], near[2], near[0]]
    assert await recipients.deliver(schedule, 7, players) == 3
    assert await recipients.next_players(schedule, 7, limit=9) == ([], 3)

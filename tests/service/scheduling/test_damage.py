"""Damaged keys of the timetable: each stalls itself, and all else is sent in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from streamer.core.schedule import Schedule, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.model import App, Log, Player
from streamer.service.scheduling import scheduler as module
from streamer.service.scheduling.scheduler import Scheduler
from streamer.store.client import damage
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.keys import bucket_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.inspection import inspect_timetable
from streamer.store.scheduling.notices import Notices
from streamer.store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON, Clock

APP, OTHER = App("app"), App("other")
BUCKET = bucket_of(APP, "ann")
BEN = next(f"b{n}" for n in range(9_999) if bucket_of(OTHER, f"b{n}") == BUCKET)
"""A player of another app in the bucket that is damaged."""

Poison = Callable[[RedisConnection, Schedule], Awaitable[object]]


@pytest.fixture
def timetable(redis: RedisConnection, clock: Clock) -> Timetable:
    return Timetable(redis, LogSettings(clock_us=clock))


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


@pytest.fixture
def scheduler(timetable: Timetable, clock: Clock) -> Scheduler:
    return Scheduler(timetable, clock_s=lambda: clock.now_ms / 1_000)


def to_player(app: App, player: str, due_ms: int = NOON) -> Schedule:
    return Schedule(
        app,
        new_schedule_id(bucket_of(app, player)),
        ScheduleState.PENDING,
        due_ms,
        0,
        b'"body":"b"}',
        player=Player(player),
        total=1,
    )


async def to_players(
    timetable: Timetable, app: App, *players: str, bucket: int = BUCKET
) -> Schedule:
    made = Schedule(
        app,
        new_schedule_id(bucket),
        ScheduleState.PENDING,
        NOON,
        0,
        b'"body":"b"}',
        total=len(players),
    )
    ref = ScheduleRef.of(made)
    names = [Player(player) for player in players]
    buckets = await timetable.recipients.enlist(ref, names)
    made = made._replace(buckets=tuple(buckets))
    assert (await timetable.add(made)).added
    return made


async def received(inbox: Inbox, app: App, player: str) -> int:
    log = Log(app, Player(player))
    read = await inbox.read_after(log, Start.EARLIEST, count=100)
    return len(read.history.entries)


def is_in(key: str) -> Callable[[RedisConnection, Schedule], str]:
    """Return the function that names a key of a schedule."""

    def name(redis: RedisConnection, schedule: Schedule) -> str:
        ref, keys = ScheduleRef.of(schedule), redis.keys
        log = Log(schedule.app, Player("ann"))
        return {
            "record": ref.record_key(keys),
            "due": keys.due(ref.bucket, ref.app),
            "apps": keys.due_apps(ref.bucket),
            "sending": keys.sending(ref.bucket),
            "inbox": keys.inbox(log).state,
            "log": keys.inbox(log).log,
            "recipients": keys.recipients(ref.bucket, ref.app, ref.id),
            "nodes": keys.nodes,
        }[key]

    return name


def replaced(key: str) -> Poison:
    async def poison(redis: RedisConnection, schedule: Schedule) -> None:
        await redis.call("SET", is_in(key)(redis, schedule), "poison")

    return poison


def command(name: str, key: str, *args: str | int | bytes) -> Poison:
    async def poison(redis: RedisConnection, schedule: Schedule) -> None:
        await redis.call(name, is_in(key)(redis, schedule), *args)

    return poison


async def spoil_log(redis: RedisConnection, schedule: Schedule) -> None:
    # Without a state the log would be the rest of a lost one, which an append deletes.
    await redis.call("HSET", is_in("inbox")(redis, schedule), "epoch", 1)
    await replaced("log")(redis, schedule)


ELSEWHERE = f"app:{new_schedule_id((BUCKET + 1) % 256)}"

POISONS: dict[str, Poison] = {
    "a record of another type": replaced("record"),
    "no record": command("DEL", "record"),
    "a record without its text": command("HDEL", "record", "fragment"),
    "a record in no known state": command("HSET", "record", "state", "odd"),
    "a time that is no number": command("HSET", "record", "ttl", "soon"),
    "a record that is not text": command("HSET", "record", "player", b"\xff"),
    "due schedules of another type": replaced("due"),
    "a due schedule that is none": command("ZADD", "due", 1, "app:garbage"),
    "a due schedule of another app": command(
        "ZADD", "due", 1, f"third:{new_schedule_id(BUCKET)}"
    ),
    "a due schedule of another bucket": command("ZADD", "due", 1, ELSEWHERE),
    "a due schedule that is not text": command("ZADD", "due", 1, b"\xff\xfe"),
    "an app that is none": command("ZADD", "apps", 1, "no app!"),
    "an app that is not text": command("ZADD", "apps", 1, b"\xff"),
    "an app without schedules": command("ZADD", "apps", 1, "gone"),
    "what is being sent of another type": replaced("sending"),
    "what is being sent that is none": command("ZADD", "sending", 1, "garbage"),
    "what is being sent without a record": command(
        "ZADD", "sending", 1, f"app:{new_schedule_id(BUCKET)}"
    ),
    "an inbox of another type": replaced("inbox"),
    "an inbox with a damaged head": command("HSET", "inbox", "epoch", 1, "head", "x"),
    "a log of another type": spoil_log,
}


@pytest.mark.parametrize("what", POISONS)
async def test_what_is_damaged_stalls_only_itself(
    what: str,
    redis: RedisConnection,
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
) -> None:
    poisoned = to_player(APP, "ann")
    others = [to_player(OTHER, BEN), to_player(APP, "eve"), to_player(OTHER, "eve")]
    for added in await timetable.add_many([poisoned, *others]):
        assert not isinstance(added, Exception)
    audience = await to_players(timetable, OTHER, "x", "y", bucket=BUCKET + 1)
    await POISONS[what](redis, poisoned)

    for _ in range(3):
        await scheduler.fire_due()
        await scheduler.send_begun()

    assert [await received(inbox, OTHER, player) for player in (BEN, "eve", "x")] == (
        [1, 1, 1]
    )
    assert await received(inbox, APP, "eve") == 1
    sent = await timetable.get(OTHER, audience.id)
    assert sent is not None
    assert sent.state is ScheduleState.SENT
    if what != "an app without schedules":
        assert sum(redis.damage.counts.values()) > 0
    assert not await scheduler.fire_due()


async def test_apps_due_of_another_type_stall_only_their_bucket(
    redis: RedisConnection, timetable: Timetable, scheduler: Scheduler, inbox: Inbox
) -> None:
    poisoned, other = to_player(APP, "ann"), to_player(OTHER, "eve")
    await timetable.add_many([poisoned, other])
    await replaced("apps")(redis, poisoned)

    await scheduler.fire_due()

    assert await received(inbox, OTHER, "eve") == 1
    assert await received(inbox, APP, "ann") == 0
    assert redis.damage.counts == {"timetable": 1}


@pytest.mark.parametrize("what", ["a record of another type", "a log of another type"])
async def test_what_is_repaired_is_sent(
    what: str,
    redis: RedisConnection,
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = to_player(APP, "ann")
    await timetable.add(schedule)
    key = is_in("record" if "record" in what else "log")(redis, schedule)
    whole = await redis.call("HGETALL", key) if "record" in what else []
    await POISONS[what](redis, schedule)
    monkeypatch.setattr(damage, "ASIDE_S", 0)
    await scheduler.fire_due()
    assert sum(redis.damage.counts.values()) == 1

    await redis.call("DEL", key)
    if whole:
        await redis.call("HSET", key, *whole)
    await scheduler.fire_due()

    assert await received(inbox, APP, "ann") == 1


async def test_many_damaged_schedules_in_front_do_not_hide_what_follows(
    redis: RedisConnection,
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRED_PER_POLL_MAX", 10)
    poisoned = [to_player(APP, "ann", NOON - 9) for _ in range(30)]
    await timetable.add_many([*poisoned, to_player(APP, "ann")])
    for schedule in poisoned:
        await replaced("record")(redis, schedule)

    for _ in range(5):
        await scheduler.fire_due()

    assert await received(inbox, APP, "ann") == 1


@pytest.mark.parametrize("what", ["an inbox of another type", "a log of another type"])
async def test_a_damaged_inbox_holds_up_no_other_recipient(
    what: str,
    redis: RedisConnection,
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
) -> None:
    near = [f"n{i}" for i in range(3_000) if bucket_of(APP, f"n{i}") == BUCKET][:5]
    schedule = await to_players(timetable, APP, near[0], "ann", *near[1:])
    await POISONS[what](redis, schedule)

    for _ in range(3):
        await scheduler.fire_due()
        await scheduler.send_begun()

    assert [await received(inbox, APP, player) for player in near] == [1] * 5
    assert redis.damage.counts["recipients"] > 0
    stored = await timetable.get(APP, schedule.id)
    assert stored is not None
    assert stored.state is ScheduleState.SENDING
    # Who has waited is served when the inbox is repaired.
    keys = (is_in(key)(redis, schedule) for key in ("inbox", "log"))
    await redis.call("DEL", *keys)
    again = Scheduler(timetable, clock_s=lambda: NOON / 1_000)
    await again.send_begun()
    assert await received(inbox, APP, "ann") == 1
    assert [await received(inbox, APP, player) for player in near] == [1] * 5
    stored = await timetable.get(APP, schedule.id)
    assert stored is not None
    assert (stored.state, stored.delivered) == (ScheduleState.SENT, 6)


async def test_damaged_recipients_hold_up_no_other_bucket_and_no_other_schedule(
    redis: RedisConnection, timetable: Timetable, scheduler: Scheduler, inbox: Inbox
) -> None:
    damaged = await to_players(timetable, APP, "ann", "eve")
    sound = await to_players(timetable, OTHER, "ann", "eve")
    key = redis.keys.recipients(BUCKET, APP, damaged.id)
    await redis.call("SET", key, "poison")
    assert bucket_of(APP, "eve") != BUCKET

    for _ in range(2):
        await scheduler.fire_due()
        await scheduler.send_begun()

    assert await received(inbox, APP, "eve") == 1
    assert await received(inbox, OTHER, "ann") == 1
    assert await received(inbox, OTHER, "eve") == 1
    stored = await timetable.get(OTHER, sound.id)
    assert stored is not None
    assert stored.state is ScheduleState.SENT


@pytest.fixture
async def running(
    store_url: str, timetable: Timetable, clock: Clock
) -> AsyncIterator[tuple[Scheduler, Notices]]:
    notices = Notices(store_url)
    scheduler = Scheduler(
        timetable,
        notices=notices,
        clock_s=lambda: clock.now_ms / 1_000,
        faults=StoreFaults(),
    )
    task = asyncio.create_task(scheduler.run())
    yield scheduler, notices
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_a_running_scheduler_hears_of_new_schedules_beside_damage(
    redis: RedisConnection,
    timetable: Timetable,
    inbox: Inbox,
    running: tuple[Scheduler, Notices],
    until: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    poisoned = to_player(APP, "ann")
    await timetable.add(poisoned._replace(due_ms=NOON + 500))
    await replaced("record")(redis, poisoned)
    await until(lambda: running[1].complete)

    await timetable.add(to_player(APP, "ann", NOON - 1))
    await timetable.add(to_player(OTHER, "eve", NOON - 1))

    async with asyncio.timeout(60):
        for app, player in ((APP, "ann"), (OTHER, "eve")):
            while not await received(inbox, app, player):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_inspection_names_what_is_damaged(
    redis: RedisConnection, timetable: Timetable
) -> None:
    poisoned, gone, sound = (to_player(APP, name) for name in ("ann", "eve", "joe"))
    await timetable.add_many([poisoned, gone, sound])
    assert (await inspect_timetable(redis)).damaged == []
    await replaced("record")(redis, poisoned)
    await command("DEL", "record")(redis, gone)
    await command("ZADD", "due", 1, "app:garbage")(redis, sound)
    await command("ZADD", "apps", 1, "no app!")(redis, sound)
    await replaced("sending")(redis, sound)

    found = await inspect_timetable(redis)

    assert found.schedules == 3
    text = "\n".join(sorted(found.damaged))
    assert len(found.damaged) == 5
    assert f"{is_in('record')(redis, poisoned)}: WRONGTYPE" in text
    assert f"{is_in('record')(redis, gone)} is missing" in text
    assert f"{is_in('due')(redis, sound)} has a member b'app:garbage'" in text
    assert f"{is_in('apps')(redis, sound)} has a member b'no app!'" in text
    assert f"{is_in('sending')(redis, sound)}: WRONGTYPE" in text


async def test_damage_is_logged_once_a_minute_for_each_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    noted = damage.Damage(lambda: now_s)
    with caplog.at_level(logging.ERROR):
        for key in ("a", "b", "c"):
            noted.note("timetable", key, "WRONGTYPE")
        noted.note("recipients", "d", "WRONGTYPE")
        now_s = 61
        noted.note("timetable", "e", "WRONGTYPE")

    assert [record.getMessage() for record in caplog.records] == [
        "timetable: damaged in the store: a: WRONGTYPE",
        "recipients: damaged in the store: d: WRONGTYPE",
        "timetable: damaged in the store: e: WRONGTYPE (2 more since the last line)",
    ]
    assert noted.counts == {"timetable": 4, "recipients": 1}

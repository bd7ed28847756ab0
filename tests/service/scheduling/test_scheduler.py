"""Schedulers that run, are killed, pause, and have wrong clocks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from streamer.core.counters import Histogram
from streamer.core.schedule import Schedule, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.model import App, Log, Player, decode_fragment, iso_time
from streamer.service.scheduling import scheduler as fires
from streamer.service.scheduling.scheduler import Scheduler
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.keys import BUCKETS, Keys, bucket_of, keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.notices import Notices
from streamer.store.scheduling.schedule_records import (
    PAUSED_MAX_MS,
    ScheduleRef,
    new_schedule_id,
)
from streamer.store.scheduling.timetable import ChangeResult, Timetable

from ...conftest import StartStore

APP, OTHER = App("app"), App("other")
NOON = 1_800_000_000_000
_numbers = itertools.count(1)


class Clock:
    """The time of the store, in ms, and of this node, in seconds."""

    def __init__(self) -> None:
        self.store_ms = NOON
        self.node_ahead_s = 0.0

    def us(self) -> int:
        return self.store_ms * 1_000

    def node_s(self) -> float:
        return self.store_ms / 1000 + self.node_ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timetable(redis: RedisConnection, clock: Clock) -> Timetable:
    return Timetable(redis, LogSettings(clock_us=clock.us))


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock.us))


@pytest.fixture
def scheduler(timetable: Timetable, clock: Clock) -> Scheduler:
    return Scheduler(timetable, clock_s=clock.node_s)


def reminder(player: str, due_ms: int = NOON, body: str = "b") -> Schedule:
    return Schedule(
        APP,
        new_schedule_id(bucket_of(APP, player)),
        ScheduleState.PENDING,
        due_ms,
        0,
        b'"body":"%b"}' % body.encode(),
        player=Player(player),
        total=1,
    )


async def add(timetable: Timetable, schedules: Sequence[Schedule]) -> None:
    for first in range(0, len(schedules), 500):
        for entered in await timetable.add_many(schedules[first : first + 500]):
            assert not isinstance(entered, Exception)
            assert entered.added


async def add_audience(
    timetable: Timetable,
    players: Sequence[str],
    *,
    app: App = APP,
    due_ms: int = NOON,
    **fields: Any,
) -> Schedule:
    made = Schedule(
        app,
        new_schedule_id(5),
        ScheduleState.PENDING,
        due_ms,
        0,
        b'"body":"b"}',
        total=len(players),
        **fields,
    )
    buckets = await timetable.recipients.enlist(
        ScheduleRef.of(made), map(Player, players)
    )
    made = made._replace(buckets=tuple(buckets))
    await add(timetable, [made])
    return made


async def received(inbox: Inbox, player: str) -> list[str | None]:
    log = Log(APP, Player(player))
    read = await inbox.read_after(log, Start.EARLIEST, count=10_000)
    return [decode_fragment(entry.fragment).body for entry in read.history.entries]


async def counts(inbox: Inbox, players: Sequence[str]) -> Counter[int]:
    """Return how many players have each number of notifications."""
    stored = [await received(inbox, player) for player in players]
    return Counter(map(len, stored))


async def is_sent(timetable: Timetable, schedule: Schedule) -> bool:
    stored = await timetable.get(APP, schedule.id)
    assert stored is not None
    return stored.state is ScheduleState.SENT


async def until(fact: Callable[[], Awaitable[bool]], *, within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        # There is no event for it in this process.
        while not await fact():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# Firing.


async def test_schedules_fire_in_the_order_of_their_times(
    timetable: Timetable, scheduler: Scheduler, inbox: Inbox
) -> None:
    order = list(range(40))
    random.shuffle(order)
    await add(timetable, [reminder("p", NOON - i, str(i)) for i in order])
    await add(timetable, [reminder("p", NOON + 1, "later")])

    await scheduler.fire_due()

    assert await received(inbox, "p") == [str(i) for i in reversed(range(40))]


async def test_an_apps_backlog_does_not_delay_another_app(
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "FIRED_PER_POLL_MAX", 100)
    names = (f"q{n}" for n in itertools.count())
    neighbour = next(q for q in names if bucket_of(OTHER, q) == bucket_of(APP, "p"))
    await add(timetable, [reminder("p", NOON - 1_000) for _ in range(200)])
    await add(timetable, [reminder(neighbour)._replace(app=OTHER)])

    await scheduler.fire_due()

    read = await inbox.read_after(
        Log(OTHER, Player(neighbour)), Start.EARLIEST, count=9
    )
    assert len(read.history.entries) == 1
    assert 50 <= len(await received(inbox, "p")) < 200


async def test_an_apps_audiences_do_not_delay_another_app(
    timetable: Timetable, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[App] = []

    async def send(schedule: Schedule, now_ms: int) -> bool:
        served.append(schedule.app)
        return False

    monkeypatch.setattr(scheduler._sender, "send", send)
    for app in (APP, APP, APP, OTHER):
        await add_audience(timetable, ["s"], app=app)
    await scheduler.fire_due()

    await scheduler.send_begun()

    assert sorted(served[:2]) == sorted([APP, OTHER])


async def test_concurrent_schedulers_fire_everything_once(
    store_url: str, timetable: Timetable, clock: Clock, inbox: Inbox
) -> None:
    """E1, in one process: three schedulers, each cancelled at random points."""
    players = [f"p{i}" for i in range(200)]
    everything = [reminder(p, NOON + i % 7) for i, p in enumerate(players * 5)]
    await add(timetable, everything)
    audience = await add_audience(timetable, players)
    clock.store_ms += 10
    stops = 0
    is_over = False

    async def keep_stopping() -> None:
        nonlocal stops
        while not is_over:
            redis = redis_at(store_url)
            mine = Timetable(redis, LogSettings(clock_us=clock.us))
            running = asyncio.create_task(Scheduler(mine, clock_s=clock.node_s).run())
            try:
                # Longer each time, so that it ends on a busy machine, too.
                await asyncio.sleep(random.uniform(0.01, 0.2) * (1 + stops / 20))
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.wait([running])
                await redis.close()
            stops += 1

    async def is_done() -> bool:
        nothing_due = not await timetable.firing.due(clock.store_ms, limit=1)
        return nothing_due and await is_sent(timetable, audience)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(keep_stopping())
        try:
            await until(is_done)
        finally:
            is_over = True  # A task that is cancelled might not close its connection.

    assert stops >= 3
    assert await counts(inbox, players) == {6: 200}


async def test_after_an_outage_late_schedules_fire_in_order_and_are_marked(
    timetable: Timetable, scheduler: Scheduler, inbox: Inbox, clock: Clock
) -> None:
    """E6: a thousand schedules become due while no scheduler runs."""
    players = [f"p{i}" for i in range(20)]
    due = [(p, NOON + 1_000 * i) for p in players for i in range(50)]
    random.shuffle(due)
    await add(timetable, [reminder(p, at_ms, str(at_ms)) for p, at_ms in due])
    clock.store_ms = NOON + 3_600_000

    while await scheduler.fire_due():
        pass

    for player in players:
        log = Log(APP, Player(player))
        read = await inbox.read_after(log, Start.EARLIEST, count=100)
        sent = [decode_fragment(entry.fragment) for entry in read.history.entries]
        assert [n.due_at for n in sent] == [
            iso_time(NOON + 1_000 * i) for i in range(50)
        ]
        assert [n.body for n in sent] == [str(NOON + 1_000 * i) for i in range(50)]
    # A send on time is not marked.
    await add(timetable, [reminder("q", clock.store_ms)])
    await scheduler.fire_due()
    log = Log(APP, Player("q"))
    read = await inbox.read_after(log, Start.EARLIEST, count=100)
    assert decode_fragment(read.history.entries[0].fragment).due_at is None


@pytest.mark.parametrize("ahead_s", [31, -31, 3_600, -86_400])
async def test_nothing_fires_while_clocks_disagree(
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    ahead_s: float,
) -> None:
    """E5: neither a single player nor the rest of an audience; logged once."""
    await add(timetable, [reminder("p")])
    audience = await add_audience(timetable, ["q"])
    await timetable.firing.begin_sending([ScheduleRef.of(audience)])
    clock.node_ahead_s = ahead_s

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not await scheduler.fire_due()
            assert not await scheduler.send_begun()

    assert scheduler.paused
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert await counts(inbox, ["p", "q"]) == {0: 2}

    clock.node_ahead_s = 0
    await scheduler.fire_due()
    await scheduler.send_begun()

    assert not scheduler.paused
    assert await counts(inbox, ["p", "q"]) == {1: 2}


async def test_a_jump_of_the_stores_clock_fires_nothing_early(
    timetable: Timetable, scheduler: Scheduler, inbox: Inbox, clock: Clock
) -> None:
    await add(timetable, [reminder("p", NOON + 600_000)])
    clock.store_ms += 3_600_000
    clock.node_ahead_s = -3_600

    await scheduler.fire_due()
    clock.store_ms, clock.node_ahead_s = NOON, 0
    await scheduler.fire_due()

    assert await received(inbox, "p") == []
    clock.store_ms = NOON + 600_000
    await scheduler.fire_due()
    assert await received(inbox, "p") == ["b"]


class Zombie(RedisConnection):
    """A connection that pauses its user before one write, until `go_on`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self.stop_at = ""

    async def run_many(self, calls: Any, **how: Any) -> list[Any]:
        if calls and calls[0].script.name == self.stop_at:
            self.stopped.set()
            await self.go_on.wait()
        return await super().run_many(calls, **how)

    async def run(self, script: Any, keys: Any, args: Any, **how: Any) -> Any:
        if script.name == self.stop_at:
            self.stopped.set()
            await self.go_on.wait()
        return await super().run(script, keys, args, **how)


@pytest.mark.parametrize("stop_at", ["fire", "begin", "deliver", "finish"])
async def test_a_paused_scheduler_sends_nothing_twice(
    store_url: str,
    timetable: Timetable,
    scheduler: Scheduler,
    inbox: Inbox,
    clock: Clock,
    stop_at: str,
) -> None:
    """E3: it pauses after reading what is due, and resumes when all is sent."""
    players = ["p", "q", "r"]
    await add(timetable, [reminder("p")])
    audience = await add_audience(timetable, players)
    redis = Zombie(store_url)
    redis.stop_at = stop_at
    zombie = Scheduler(
        Timetable(redis, LogSettings(clock_us=clock.us)), clock_s=clock.node_s
    )

    async def work() -> None:
        await zombie.fire_due()
        await zombie.send_begun()

    working = asyncio.create_task(work())
    await redis.stopped.wait()
    await scheduler.fire_due()
    while not await is_sent(timetable, audience):
        await scheduler.send_begun()
    redis.go_on.set()
    await working
    await redis.close()

    assert await counts(inbox, players) == {2: 1, 1: 2}
    stored = await timetable.get(APP, audience.id)
    assert stored is not None
    assert (stored.state, stored.delivered) == (ScheduleState.SENT, 3)


class Fragile(RedisConnection):
    """
    A connection that fails at the nth command, before or after its execution.

    Its user is then replaced, as a killed process is.
    """

    def __init__(self, url: str, *, fails_at: int, done: bool) -> None:
        super().__init__(url)
        self._left = fails_at
        self._done = done

    async def call_many(self, commands: Any, *, write: bool = False) -> list[Any]:
        self._left -= 1
        if self._left:
            return await super().call_many(commands, write=write)
        if self._done:
            await super().call_many(commands, write=write)
        raise OutcomeUnknown if write else StoreUnavailable


@pytest.mark.parametrize("kind", ["players", "campaign"])
@pytest.mark.parametrize("done", [False, True], ids=["not sent", "carried out"])
async def test_an_audience_continues_where_a_killed_scheduler_stopped(
    store_url: str,
    timetable: Timetable,
    inbox: Inbox,
    redis: RedisConnection,
    clock: Clock,
    kind: str,
    done: bool,
) -> None:
    """A scheduler fails at its first step, the next at its second, and so on."""
    # All in one bucket, so that a bucket has several portions.
    players = [p for i in range(100_000) if bucket_of(APP, p := f"p{i}") == 3][:250]
    players += [f"x{i}" for i in range(10)]
    if kind == "players":
        audience = await add_audience(timetable, players)
    else:
        for player in players:
            key = keys_of().cards(bucket_of(APP, player), APP, "c")
            await redis.call("HSET", key, f"card-{player}", f"active 1 {player}")
        audience = reminder("p")._replace(
            id=new_schedule_id(bucket_of(APP, "c")),
            player=None,
            campaign="c",
            buckets=tuple(sorted({bucket_of(APP, player) for player in players})),
        )
        await add(timetable, [audience])
    deaths = 0

    for nth in itertools.count(1):
        fragile = Fragile(store_url, fails_at=nth, done=done)
        mortal = Scheduler(
            Timetable(fragile, LogSettings(clock_us=clock.us)), clock_s=clock.node_s
        )
        try:
            await mortal.fire_due()
            await mortal.send_begun()
        except (StoreUnavailable, OutcomeUnknown):
            deaths += 1
        await fragile.close()
        if await is_sent(timetable, audience):
            break

    assert deaths > 5
    assert await counts(inbox, players) == {1: len(players)}
    stored = await timetable.get(APP, audience.id)
    assert stored is not None
    assert stored.delivered == len(players)


async def test_a_spread_audience_is_served_over_its_window(
    timetable: Timetable, scheduler: Scheduler, inbox: Inbox, clock: Clock
) -> None:
    players = [f"p{i}" for i in range(200)]
    audience = await add_audience(timetable, players, spread_ms=100_000)
    await scheduler.fire_due()
    served = []

    for _ in range(6):
        while await scheduler.send_begun():
            pass
        stored = await timetable.get(APP, audience.id)
        assert stored is not None
        served.append(stored.delivered)
        clock.store_ms += 20_000

    assert served == sorted(set(served))
    assert served[0] < 20
    assert 70 < served[2] < 140
    assert served[-1] == 200
    assert await counts(inbox, players) == {1: 200}
    # A recipient that is served late within the spread is not late.
    log = Log(APP, Player(players[0]))
    read = await inbox.read_after(log, Start.EARLIEST, count=9)
    assert decode_fragment(read.history.entries[0].fragment).due_at is None


async def test_a_large_audience_does_not_delay_a_small_one(
    timetable: Timetable, scheduler: Scheduler, inbox: Inbox
) -> None:
    large = await add_audience(timetable, [f"p{i}" for i in range(6_000)])
    small = await add_audience(timetable, ["s"])
    await scheduler.fire_due()

    more = await scheduler.send_begun()

    assert await is_sent(timetable, small)
    if not await is_sent(timetable, large):
        assert more


async def test_a_scheduler_survives_an_outage_of_the_store(
    start_store: StartStore, tmp_path: Path
) -> None:
    store = await start_store()
    redis, other = RedisConnection(store.url), RedisConnection(store.url)
    timetable = Timetable(other)
    running = asyncio.create_task(Scheduler(Timetable(redis)).run())
    try:
        now_ms = int(time.time() * 1000)
        await add(timetable, [reminder("p", now_ms, "before")])
        inbox = Inbox(other)
        await until(lambda: _has(inbox, "p", ["before"]))
        await store.stop()
        await start_store()

        await add(timetable, [reminder("p", now_ms, "after")])

        await until(lambda: _has(inbox, "p", ["before", "after"]))
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await redis.close()
        await other.close()


@pytest.mark.parametrize("key", [Keys.due_apps, Keys.sending])
async def test_a_scheduler_serves_all_but_a_key_of_the_wrong_type(
    redis: RedisConnection, inbox: Inbox, key: Callable[[Keys, int], str]
) -> None:
    async def is_noted() -> bool:
        return redis.damage.counts["timetable"] > 0

    timetable, faults = Timetable(redis), StoreFaults()
    await redis.call("SET", key(redis.keys, 7), "not a sorted set")
    assert bucket_of(APP, "p") != 7
    running = asyncio.create_task(Scheduler(timetable, faults=faults).run())
    try:
        await until(is_noted)

        await add(timetable, [reminder("p", int(time.time() * 1000), "after")])

        await until(lambda: _has(inbox, "p", ["after"]))
        # A key of one bucket makes no node unready.
        assert faults.reason is None
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _has(inbox: Inbox, player: str, bodies: list[str]) -> bool:
    return await received(inbox, player) == bodies


@pytest.fixture(autouse=True)
async def guard() -> AsyncIterator[None]:
    async with asyncio.timeout(100):
        yield


async def test_a_campaign_without_cards_is_sent_to_nobody(
    timetable: Timetable, scheduler: Scheduler
) -> None:
    empty = reminder("p")._replace(
        id=new_schedule_id(bucket_of(APP, "c")),
        player=None,
        campaign="c",
        buckets=tuple(range(BUCKETS)),
    )
    await add(timetable, [empty])

    await scheduler.fire_due()
    while await scheduler.send_begun():
        pass

    stored = await timetable.get(APP, empty.id)
    assert stored is not None
    assert (stored.state, stored.delivered) == (ScheduleState.SENT, 0)


async def test_the_delay_of_a_schedule_is_counted_once(
    timetable: Timetable, clock: Clock
) -> None:
    late, other = (
        Scheduler(timetable, clock_s=clock.node_s, lag_s=Histogram((1, 10)))
        for _ in range(2)
    )
    await add(timetable, [reminder("p")])
    await add_audience(timetable, ["q", "r"])
    clock.store_ms += 7_000

    await late.fire_due()
    await other.fire_due()

    assert (late._lag_s.counts, late._lag_s.sum) == ([0, 2, 0], 14.0)
    assert other._lag_s.count == 0


# At rest, and waking up.


@contextlib.asynccontextmanager
async def running(
    timetable: Timetable, clock: Clock, store_url: str, *, count: int = 1
) -> AsyncIterator[list[Scheduler]]:
    """Run schedulers that have subscribed to notices and looked at every bucket."""
    notices = [Notices(store_url) for _ in range(count)]
    schedulers = [
        Scheduler(timetable, notices=each, clock_s=clock.node_s) for each in notices
    ]
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(each.run()) for each in schedulers]

        async def at_rest() -> bool:
            complete = all(each.complete for each in notices)
            times = [each._agenda.next_ms for each in schedulers]
            return complete and all(ms > clock.store_ms for ms in times)

        await until(at_rest)
        yield schedulers
        for task in started:
            task.cancel()


async def calls(redis: RedisConnection, *names: str) -> int:
    """Return how often commands were called since the last reset."""
    stats = (await redis.call("INFO", "commandstats")).decode()
    return sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats.splitlines()
        if line.split(":")[0] in {f"cmdstat_{name}" for name in names}
    )


@pytest.mark.parametrize("count", [1, 2])
async def test_schedulers_at_rest_ask_the_store_little(
    redis: RedisConnection,
    store_url: str,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """A tick, of a second, costs some commands, whatever the number of buckets."""
    monkeypatch.setattr(fires, "TICK_S", 0.02)
    timetable = Timetable(redis)  # With the store's clock, which each tick reads.
    clock.store_ms = int(time.time() * 1_000)
    await add(timetable, [reminder("p", clock.store_ms + 3_600_000)])
    async with running(timetable, clock, store_url, count=count):
        await redis.call("CONFIG", "RESETSTAT")

        async def ticked() -> bool:
            return await calls(redis, "time") >= 40

        await until(ticked)
        ticks = await calls(redis, "time")
        looks = await calls(redis, "zrange", "zrangebyscore")

    # For each tick two buckets for schedules and two for audiences; those may tick a
    # little more often. Polling all buckets would be 512 commands.
    assert looks <= 4 * fires.WALK * ticks


async def test_a_notice_wakes_a_scheduler_that_sleeps(
    store_url: str,
    timetable: Timetable,
    clock: Clock,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 3_600.0)
    async with running(timetable, clock, store_url):
        await add(timetable, [reminder("p", NOON)])

        await until(lambda: _has(inbox, "p", ["b"]))


async def test_a_sleeping_scheduler_wakes_when_the_next_schedule_is_due(
    redis: RedisConnection,
    store_url: str,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 3_600.0)
    timetable, inbox = Timetable(redis), Inbox(redis)
    clock.store_ms = now_ms = int(time.time() * 1_000)
    async with running(timetable, clock, store_url):
        await add(timetable, [reminder("p", now_ms + d, str(d)) for d in (900, 600)])

        await until(lambda: _has(inbox, "p", ["600", "900"]))


async def test_a_store_whose_clock_is_set_forward_is_noticed_by_the_next_tick(
    store_url: str,
    timetable: Timetable,
    clock: Clock,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 0.02)
    async with running(timetable, clock, store_url):
        await add(timetable, [reminder("p", NOON + 3_600_000)])

        clock.store_ms += 3_600_000  # The clock of this node follows it.

        await until(lambda: _has(inbox, "p", ["b"]))


async def test_a_schedule_without_a_notice_is_found_by_walking(
    store_url: str,
    timetable: Timetable,
    clock: Clock,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 0.005)

    class Unheard(Keys):
        def notices(self, bucket: int) -> str:
            return "nobody"

    monkeypatch.setattr(timetable, "_keys", Unheard("streamer", 0))
    async with running(timetable, clock, store_url):
        await add(timetable, [reminder("p", NOON)])

        await until(lambda: _has(inbox, "p", ["b"]))


async def test_what_was_added_while_notices_were_interrupted_fires(
    redis: RedisConnection,
    store_url: str,
    timetable: Timetable,
    clock: Clock,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 3_600.0)
    async with running(timetable, clock, store_url):
        await redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        await add(timetable, [reminder("p", NOON)])

        await until(lambda: _has(inbox, "p", ["b"]))


async def test_another_scheduler_serves_an_audience_that_was_begun_and_left(
    store_url: str,
    timetable: Timetable,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "TICK_S", 3_600.0)
    left = await add_audience(timetable, ["a", "b"], due_ms=NOON + 1_000)
    async with running(timetable, clock, store_url):
        clock.store_ms += 2_000
        # As by a scheduler that is killed right after.
        await timetable.firing.begin_sending([ScheduleRef.of(left)])

        await until(lambda: is_sent(timetable, left))


# Pauses.


async def test_the_delay_of_a_resumed_schedule_counts_from_its_resumption(
    timetable: Timetable, clock: Clock
) -> None:
    lag_s = Histogram((1, 10))
    scheduler = Scheduler(timetable, clock_s=clock.node_s, lag_s=lag_s)
    schedule = reminder("p", NOON)
    await add(timetable, [schedule])
    await timetable.pause(ScheduleRef.of(schedule))
    clock.store_ms += 600_000
    await timetable.resume(ScheduleRef.of(schedule), due_ms=NOON)
    clock.store_ms += 2_000

    await scheduler.fire_due()

    assert (lag_s.count, lag_s.sum) == (1, 2.0)


async def test_a_paused_audience_is_served_no_more_until_it_is_resumed(
    timetable: Timetable, inbox: Inbox, scheduler: Scheduler
) -> None:
    players = ["a", "b", "c"]
    schedule = await add_audience(timetable, players)
    ref = ScheduleRef.of(schedule)
    await scheduler.fire_due()
    await timetable.pause(ref)

    assert not await scheduler.send_begun()
    assert await counts(inbox, players) == {0: 3}
    await timetable.resume(ref, due_ms=schedule.due_ms)
    while not await is_sent(timetable, schedule):
        await scheduler.send_begun()

    assert await counts(inbox, players) == {1: 3}


async def test_what_was_paused_for_too_long_is_cancelled(
    timetable: Timetable, inbox: Inbox, clock: Clock, scheduler: Scheduler
) -> None:
    single = reminder("p", NOON)
    await add(timetable, [single])
    begun = await add_audience(timetable, ["a", "b"])
    await timetable.pause(ScheduleRef.of(single))
    await scheduler.fire_due()
    await timetable.pause(ScheduleRef.of(begun))
    clock.store_ms += PAUSED_MAX_MS - 1
    await scheduler.fire_due()
    states = [await state(timetable, it) for it in (single, begun)]
    assert states == [ScheduleState.PAUSED] * 2
    clock.store_ms += 1

    await scheduler.fire_due()

    states = [await state(timetable, it) for it in (single, begun)]
    assert states == [ScheduleState.CANCELLED] * 2
    assert await counts(inbox, ["a", "b", "p"]) == {0: 3}
    assert await timetable.firing.due(clock.store_ms, limit=9) == []


async def test_what_is_resumed_in_the_last_moment_is_sent_to_all(
    timetable: Timetable,
    inbox: Inbox,
    clock: Clock,
    scheduler: Scheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    players = ["a", "b"]
    schedule = await add_audience(timetable, players)
    ref = ScheduleRef.of(schedule)
    await scheduler.fire_due()
    await timetable.pause(ref)
    clock.store_ms += PAUSED_MAX_MS
    cancel = timetable.cancel_overdue

    async def resumed_before(*args: Any, **more: Any) -> ChangeResult:
        await timetable.resume(ref, due_ms=schedule.due_ms)
        return await cancel(*args, **more)

    monkeypatch.setattr(timetable, "cancel_overdue", resumed_before)

    await scheduler.fire_due()
    while not await is_sent(timetable, schedule):
        await scheduler.send_begun()

    assert await counts(inbox, players) == {1: 2}


async def test_a_pause_counts_for_what_is_sent_after_others(
    timetable: Timetable,
    inbox: Inbox,
    scheduler: Scheduler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fires, "AUDIENCES_CONCURRENT", 1)
    both = [await add_audience(timetable, [player]) for player in ("a", "b")]
    await scheduler.fire_due()
    send = scheduler._sender.send

    async def with_a_pause(first: Schedule, now_ms: int) -> bool:
        """Serve the first audience; pause the other one meanwhile."""
        (other,) = (it for it in both if it.id != first.id)
        await timetable.pause(ScheduleRef.of(other))
        return await send(first, now_ms)

    monkeypatch.setattr(scheduler._sender, "send", with_a_pause)

    await scheduler.send_begun()

    assert await counts(inbox, ["a", "b"]) == {0: 1, 1: 1}


async def state(timetable: Timetable, schedule: Schedule) -> ScheduleState:
    found = await timetable.get(schedule.app, schedule.id)
    assert found is not None
    return found.state

"""SIGKILL while schedules are sent: to three scheduler processes, and to the store."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.core.schedule import Schedule, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.errors import Unavailable
from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.deployment import enter_deployment
from streamer.store.keys import bucket_of
from streamer.store.logs.inbox import Inbox, ReadAfter
from streamer.store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ..e2e.processes import DURABLE, ChildProcess, StoreProcess, command, eventually

APP = App("demo")
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]


class SchedulerProcess(ChildProcess):
    """`streamer scheduler`, killed and restarted many times."""

    def __init__(self, folder: Path, name: str, store_url: str) -> None:
        super().__init__(folder, name)
        self._name = name
        self._url = f"{store_url}?client_name={name}"
        self.kills = 0

    def start(self) -> None:
        self._spawn(command("scheduler", "--redis", self._url))

    async def keep_dying(self, redis: RedisConnection, deaths: int) -> None:
        """Be killed and restarted so many times, then stay alive."""
        while self.kills < deaths:
            self.start()
            await eventually(lambda: self._is_there(redis))
            # Between its first moments and the middle of its work.
            await asyncio.sleep(random.uniform(0, 0.5))
            assert not self.ended, self.logged
            await self.kill()
            self.kills += 1
        self.start()

    async def _is_there(self, redis: RedisConnection) -> bool:
        try:
            clients = await redis.call("CLIENT", "LIST")
        except Unavailable:
            return False
        return f" name={self._name} ".encode() in clients


@pytest.fixture
def make_scheduler(tmp_path: Path) -> Iterator[Callable[[str], SchedulerProcess]]:
    made: list[SchedulerProcess] = []

    def make(store_url: str) -> SchedulerProcess:
        made.append(SchedulerProcess(tmp_path, f"scheduler{len(made)}", store_url))
        return made[-1]

    yield make
    for process in made:
        process.discard()


@pytest.fixture
async def make_redis() -> AsyncIterator[Callable[[str], RedisConnection]]:
    made: list[RedisConnection] = []

    def make(url: str) -> RedisConnection:
        made.append(RedisConnection(url))
        return made[-1]

    yield make
    for redis in made:
        await redis.close()


async def enter(timetable: Timetable, count: int, players: list[str]) -> int:
    """Enter schedules that are due within the next seconds, and an audience."""
    now_ms = await timetable.now_ms()
    last_ms = now_ms + max(8_000, count)
    made = []
    for i in range(count):
        player = players[i % len(players)]
        schedule_id = new_schedule_id(bucket_of(APP, player))
        due_ms = random.randrange(now_ms, last_ms)
        fragment = b'"body":"%d"}' % i
        made.append(
            Schedule(
                *(APP, schedule_id, ScheduleState.PENDING, due_ms, 0, fragment),
                player=Player(player),
            )
        )
    for first in range(0, count, 500):
        for entered in await timetable.add_many(made[first : first + 500]):
            assert not isinstance(entered, Exception)
    audience = Schedule(
        *(
            APP,
            new_schedule_id(9),
            ScheduleState.PENDING,
            now_ms + 3_000,
            0,
            b'"body":"all"}',
        ),
        total=len(players),
    )
    buckets = await timetable.recipients.enlist(
        ScheduleRef.of(audience), map(Player, players)
    )
    await timetable.add(audience._replace(buckets=tuple(buckets)))
    return last_ms


async def is_done(timetable: Timetable, last_ms: int) -> bool:
    """Return whether everything was sent; False while the store is unavailable."""
    try:
        waiting = await timetable.firing.due(last_ms, limit=1)
        return not waiting and not await timetable.firing.sending()
    except Unavailable:
        return False


async def check(redis: RedisConnection, players: list[str], count: int) -> int:
    """Check that every item is stored once; return their number."""
    inbox, bodies = Inbox(redis), Counter[bytes]()
    reads = [
        ReadAfter(Log(APP, Player(player)), Start.EARLIEST, 10_000)
        for player in players
    ]
    for read in await inbox.read_many(reads):
        assert not isinstance(read, Exception)
        own = [entry.fragment for entry in read.history.entries]
        bodies.update(fragment[fragment.index(b'"body"') :] for fragment in own)
    assert bodies.pop(b'"body":"all"}') == len(players)
    assert bodies == {b'"body":"%d"}' % i: 1 for i in range(count)}
    return len(bodies)


async def keep_killing(store: StoreProcess, deaths: int) -> None:
    for _ in range(deaths):
        await asyncio.sleep(2)
        await store.kill()
        await store.start()


# Without a limit of deaths, a slow machine would never finish: a process has hardly
# started when it is killed.
@pytest.mark.parametrize(
    ("count", "deaths", "store_dies"),
    [
        pytest.param(2_000, 4, False, id="schedulers"),
        pytest.param(
            *(30_000, 12, True),
            id="schedulers and store",
            marks=[pytest.mark.nightly, pytest.mark.timeout(300)],
        ),
    ],
)
async def test_kills_neither_lose_nor_duplicate_schedules(
    make_store: MakeStore,
    make_scheduler: Callable[[str], SchedulerProcess],
    make_redis: Callable[[str], RedisConnection],
    report: Report,
    count: int,
    deaths: int,
    store_dies: bool,
) -> None:
    """E1: nothing is lost or duplicated."""
    store = await make_store(*DURABLE).start()
    redis = make_redis(store.url)
    await enter_deployment(redis)
    timetable = Timetable(redis)
    players = [f"p{i}" for i in range(count // 10)]
    schedulers = [make_scheduler(store.url) for _ in range(3)]
    last_ms = await enter(timetable, count, players)
    begun_s = time.monotonic()

    dying = [asyncio.create_task(each.keep_dying(redis, deaths)) for each in schedulers]
    if store_dies:
        dying.append(asyncio.create_task(keep_killing(store, deaths)))
    done = eventually(lambda: is_done(timetable, last_ms), within_s=240)
    watching: asyncio.Future[Any] = asyncio.ensure_future(done)
    killing: asyncio.Future[Any] = asyncio.gather(*dying)
    try:
        # On a slow machine, or after an error, the killing ends first.
        await asyncio.wait([watching, killing], return_when=asyncio.FIRST_COMPLETED)
        if killing.done():
            killing.result()
        await watching
    finally:
        watching.cancel()
        killing.cancel()
        await asyncio.gather(watching, killing, *dying, return_exceptions=True)
    if store.ended:
        await store.start()

    assert await check(redis, players, count) == count
    kills = sum(each.kills for each in schedulers)
    assert kills >= 3
    took_s = time.monotonic() - begun_s
    report(
        f"{count} sends, {kills} scheduler kills in {took_s:.0f} s, 0 lost, "
        "0 duplicates"
    )

"""
Schedules: how late due items go out while a million others wait.

Enters the backlog and then items that are due evenly over some seconds, and a burst
that is due in one moment. How late one was is the difference of two times of the
store's own clock: when it was due, and when it got its place in an inbox. So neither
the load nor the way to it is in the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .peers import Setup, Streamer
from .peers.base import Absent
from .run.harness import Answer, Figure, LoadFailed, Options, Question, Turn, main

if TYPE_CHECKING:
    from streamer.core.schedule import Schedule
    from streamer.store.client.connection import RedisConnection
    from streamer.store.scheduling.timetable import Timetable

__all__ = ["QUESTION"]

PORTION = 1_000
"""Items entered in one packet."""

ABREAST = 3

PLAYERS = 20_000
HOUR_MS = 3_600_000
BACKLOG_MS = 29 * 24 * HOUR_MS
AHEAD_MS = 1_500
"""Time to enter what is due next, before the first of it is."""

GIVE_UP_S = 120.0


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--items", type=int, default=1_000_000, help="waiting meanwhile (1000000)")
    add("--rate", type=int, default=1_000, help="due a second (1000)")
    add("--burst", type=int, default=10_000, help="due in one moment (10000)")
    add("--redis", default="", help="the store behind --url, where items are entered")
    add("--app", default="demo", help="app of the items (demo)")


def setup(options: Options) -> Setup:
    return Setup(stored=True)


def ask(turn: Turn) -> Answer:
    from streamer.store.client.connection import RedisConnection
    from streamer.store.scheduling.timetable import Timetable

    options, peer = turn.options, turn.peer
    assert isinstance(peer, Streamer)
    if options.url and not options.redis:
        raise Absent("a running deployment is asked with --redis, its store's URL")

    async def run() -> Answer:
        url = options.redis or peer._store_url()
        redis = RedisConnection(url, name="bench", timeout_s=60)
        try:
            return await _Backlog(turn, redis, Timetable(redis)).ask()
        finally:
            await redis.close()

    return asyncio.run(run())


class _Backlog:
    """One peer's store, with many schedules in it."""

    def __init__(
        self, turn: Turn, redis: RedisConnection, timetable: Timetable
    ) -> None:
        self._turn = turn
        self._redis = redis
        self._timetable = timetable
        self._run = f"{random.randrange(16**8):08x}"

    async def ask(self) -> Answer:
        turn, options = self._turn, self._turn.options
        before = await self._memory()
        begun_s = time.monotonic()
        await self._enter(options.items, self._later, "entering the backlog")
        answer = {"enter_per_s": options.items / (time.monotonic() - begun_s)}
        answer["bytes"] = (await self._memory() - before) / max(1, options.items)

        count = max(1, int(options.rate * options.seconds))
        with turn.watch() as watch:
            late_ms = await self._fire(count, options.seconds * 1_000, "due")
        answer["cpu_us"] = watch.server_cpu_s / count * 1e6
        answer["store_us"] = watch.store_cpu_s / count * 1e6
        answer |= turn.note_latency("late", array("I", (ms * 1_000 for ms in late_ms)))
        answer["max_us"] = max(late_ms) * 1_000.0

        burst_ms = await self._fire(options.burst, 0, "burst")
        answer["burst_ms"] = float(max(burst_ms))
        return answer

    async def _fire(self, count: int, over_ms: float, name: str) -> list[int]:
        """Enter items that are due over a time; return how late each went out."""
        from streamer.core.streams.subscription import Start
        from streamer.model import App, Log, Player
        from streamer.store.logs.inbox import Inbox, ReadAfter

        ahead_ms = AHEAD_MS + count // 4
        first_ms = await self._timetable.now_ms() + ahead_ms
        due = [first_ms + int(over_ms * i / count) for i in range(count)]
        names = [f"{self._run}-{name}-{i}" for i in range(count)]
        await self._enter(count, lambda i: (names[i], due[i]), f"entering the {name}")
        if await self._timetable.now_ms() > first_ms:
            raise LoadFailed("the machine is too slow to enter them before their time")
        self._turn.say("waiting for them to go out")
        await self._gone(due[-1])
        app, late_ms = App(self._turn.options.app), []
        inbox = Inbox(self._redis)
        for first in range(0, count, PORTION):
            asked = [
                ReadAfter(Log(app, Player(player)), Start.EARLIEST, 2)
                for player in names[first : first + PORTION]
            ]
            for i, read in enumerate(await inbox.read_many(asked), first):
                if isinstance(read, Exception):
                    raise read
                entries = read.history.entries
                if len(entries) != 1:
                    raise LoadFailed(f"{len(entries)} of one item have arrived")
                late_ms.append(max(0, entries[0].at_ms - due[i]))
        return late_ms

    async def _gone(self, last_ms: int) -> None:
        until_s = time.monotonic() + GIVE_UP_S
        while await self._timetable.firing.due(last_ms, limit=1):
            if time.monotonic() > until_s:
                raise LoadFailed("not everything has gone out")
            await asyncio.sleep(0.1)

    async def _enter(
        self, count: int, item: Callable[[int], tuple[str, int]], what: str
    ) -> None:
        self._now_ms = await self._timetable.now_ms()
        portions = iter(range(0, count, PORTION))

        async def enter() -> None:
            for first in portions:
                self._turn.say(f"{what}, {first:,} of {count:,}")
                last = min(first + PORTION, count)
                made = list(self._schedules(item, range(first, last)))
                for entered in await self._timetable.add_many(made):
                    if isinstance(entered, Exception):
                        raise entered

        # One is being written down while the store is at another.
        await asyncio.gather(*(enter() for _ in range(ABREAST)))

    def _schedules(
        self, item: Callable[[int], tuple[str, int]], which: range
    ) -> Iterator[Schedule]:
        from streamer.core.schedule import Schedule, ScheduleState
        from streamer.model import App, Player
        from streamer.store.keys import bucket_of
        from streamer.store.scheduling.schedule_records import new_schedule_id

        app = App(self._turn.options.app)
        for i in which:
            player, due_ms = item(i)
            yield Schedule(
                app,
                new_schedule_id(bucket_of(app, player)),
                ScheduleState.PENDING,
                due_ms,
                0,
                b'"type":"bench","body":"%b"}' % (b"x" * 100),
                player=Player(player),
                total=1,
                source="bench",
            )

    def _later(self, i: int) -> tuple[str, int]:
        due_ms = self._now_ms + HOUR_MS + random.randrange(BACKLOG_MS)
        return f"{self._run}-{i % PLAYERS}", due_ms

    async def _memory(self) -> int:
        info = bytes(await self._redis.call("INFO", "memory"))
        return int(info.partition(b"used_memory:")[2].split(b"\r\n")[0])


QUESTION = Question(
    name="schedule",
    title="{rate:,} schedules due a second while {items:,} wait",
    figures=[
        Figure("p99_us", "p99 late", "µs", 0),
        Figure("p50_us", "p50", "µs", 0),
        Figure("max_us", "latest", "µs", 0),
        Figure("burst_ms", "a burst is out after", "ms", 0),
        Figure("cpu_us", "CPU each", "µs", 1),
        Figure("store_us", "the store's", "µs", 1),
        Figure("enter_per_s", "entered a second", "", 0, lower_is_better=False),
        Figure("bytes", "store's memory each", "B", 0),
    ],
    peers=["streamer"],
    setup=setup,
    ask=ask,
    options=options,
    about="Late is by the store's clock, due time against place in the inbox. The "
    "scheduler looks four times a second, so half of that is its floor. Items are "
    "entered in the store, not over HTTP; CPU includes the looking.",
)

if __name__ == "__main__":
    main(QUESTION)

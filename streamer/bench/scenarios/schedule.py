"""
Schedules: how late due items are sent while a million others wait.

Enters the backlog, then items that are due evenly over some seconds, then a burst that
is due at one moment. The delay of an item is the difference of two times of the store's
own clock: when it was due, and when it was stored in an inbox. So the figure includes
neither the load nor the network.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ...store_url import NAMESPACE
from ..deployment import StreamerTarget
from ..load.handle import LoadError
from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    option,
)
from ..target import Requirements, Unsupported

if TYPE_CHECKING:
    from ...core.schedule import Schedule
    from ...store.client.connection import RedisConnection
    from ...store.scheduling.timetable import Timetable

__all__ = ["SCENARIO"]

PORTION = 1_000
"""Items entered in one pipeline."""

CONCURRENCY = 3

PLAYERS = 20_000
HOUR_MS = 3_600_000
BACKLOG_MS = 29 * 24 * HOUR_MS
AHEAD_MS = 1_500
"""Time to enter the next items before the first of them is due."""

GIVE_UP_S = 120.0


def requirements(options: Options) -> Requirements:
    return Requirements(stored=True)


def measure(trial: Trial) -> Measurements:
    from ...store.client.cluster import redis_at
    from ...store.scheduling.timetable import Timetable

    assert isinstance(trial.target, StreamerTarget), "only its store is known"
    url, namespace = trial.target.store_url, trial.target.namespace
    if not url:
        raise Unsupported("items are entered in the store: give its URL with --redis")

    async def run() -> Measurements:
        redis = redis_at(url, namespace=namespace, name="bench", timeout_s=60)
        try:
            return await _Backlog(trial, redis, Timetable(redis)).measure()
        finally:
            await redis.close()

    return asyncio.run(run())


class _Backlog:
    """The store of a target, with many schedules in it."""

    def __init__(
        self, trial: Trial, redis: RedisConnection, timetable: Timetable
    ) -> None:
        assert isinstance(trial.target, StreamerTarget)
        self._trial, self._target = trial, trial.target
        self._redis = redis
        self._timetable = timetable
        self._run = f"{random.randrange(16**8):08x}"

    async def measure(self) -> Measurements:
        trial, options = self._trial, self._trial.options
        before = await self._memory()
        started_s = time.monotonic()
        await self._enter(options.items, self._later, "entering the backlog")
        result = {"enter_per_s": options.items / (time.monotonic() - started_s)}
        result["bytes"] = (await self._memory() - before) / max(1, options.items)

        count = max(1, int(options.rate * options.seconds))
        with trial.watch() as used:
            delays_ms = await self._fire(count, options.seconds * 1_000, "due")
        trial.note_shares()
        result["cpu_us"] = used.server_cpu_s / count * 1e6
        result["store_us"] = used.store_cpu_s / count * 1e6
        delays_us = array("I", (ms * 1_000 for ms in delays_ms))
        result |= trial.note_latency("late", delays_us)
        result["max_us"] = max(delays_ms) * 1_000.0

        burst_ms = await self._fire(options.burst, 0, "burst")
        result["burst_ms"] = float(max(burst_ms))
        return result

    async def _fire(self, count: int, over_ms: float, name: str) -> list[int]:
        """Enter items that are due over a time; return the delay of each in ms."""
        from ...core.streams.subscription import Start
        from ...model import App, Log, Player
        from ...store.logs.inbox import Inbox, ReadAfter

        ahead_ms = AHEAD_MS + count // 4
        first_ms = await self._timetable.now_ms() + ahead_ms
        due = [first_ms + int(over_ms * i / count) for i in range(count)]
        names = [f"{self._run}-{name}-{i}" for i in range(count)]
        await self._enter(count, lambda i: (names[i], due[i]), f"entering the {name}")
        if await self._timetable.now_ms() > first_ms:
            raise LoadError(
                "this machine is too slow to enter items before they are due"
            )
        self._trial.say("waiting until they are sent")
        await self._sent(due[-1])
        app, delays_ms = App(self._target.app), []
        inbox = Inbox(self._redis)
        for first in range(0, count, PORTION):
            reads = [
                ReadAfter(Log(app, Player(player)), Start.EARLIEST, 2)
                for player in names[first : first + PORTION]
            ]
            for i, read in enumerate(await inbox.read_many(reads), first):
                if isinstance(read, Exception):
                    raise read
                entries = read.history.entries
                if len(entries) != 1:
                    raise LoadError(f"an item was stored {len(entries)} times")
                delays_ms.append(max(0, entries[0].at_ms - due[i]))
        return delays_ms

    async def _sent(self, last_ms: int) -> None:
        until_s = time.monotonic() + GIVE_UP_S
        while await self._timetable.firing.due(last_ms, limit=1):
            if time.monotonic() > until_s:
                raise LoadError("not all items were sent")
            await asyncio.sleep(0.1)

    async def _enter(
        self, count: int, item: Callable[[int], tuple[str, int]], what: str
    ) -> None:
        self._now_ms = await self._timetable.now_ms()
        portions = iter(range(0, count, PORTION))

        async def enter() -> None:
            for first in portions:
                self._trial.say(f"{what}, {first:,} of {count:,}")
                last = min(first + PORTION, count)
                made = list(self._schedules(item, range(first, last)))
                for entered in await self._timetable.add_many(made):
                    if isinstance(entered, Exception):
                        raise entered

        # While the store works on one portion, the next one is encoded.
        await asyncio.gather(*(enter() for _ in range(CONCURRENCY)))

    def _schedules(
        self, item: Callable[[int], tuple[str, int]], which: range
    ) -> Iterator[Schedule]:
        from ...core.schedule import Schedule, ScheduleState
        from ...model import App, Player
        from ...store.keys import bucket_of
        from ...store.scheduling.schedule_records import new_schedule_id

        app = App(self._target.app)
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


SCENARIO = Scenario(
    name="schedule",
    title="{rate:,} schedules due per second while {items:,} wait",
    figures=[
        *latency_figures("delay"),
        Figure("max_us", "maximum", "µs", 0),
        Figure("burst_ms", "a burst is sent after", "ms", 0),
        Figure("cpu_us", "CPU each", "µs", 1, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 1, of_process=True, of_store=True),
        Figure("enter_per_s", "entered per second", "", 0, lower_is_better=False),
        Figure("bytes", "memory of the store each", "B", 0),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--items", 1_000_000, "Schedules that wait meanwhile."),
        option("--rate", 1_000, "Schedules due per second."),
        option("--burst", 10_000, "Schedules due at one moment."),
        option("--redis", "", "Store of the deployment, where items are entered."),
        click.Option(
            ["--namespace"],
            envvar="STREAMER_NAMESPACE",
            show_envvar=True,
            default=NAMESPACE,
            show_default=True,
            help="Namespace of the deployment's keys.",
        ),
    ],
    about="The delay is by the clock of the store, from the due time to the time of "
    "storing in the inbox. The scheduler looks four times per second, so half of that "
    "is the least. Items are entered in the store, not over HTTP; CPU includes the "
    "scheduler's polling.",
)

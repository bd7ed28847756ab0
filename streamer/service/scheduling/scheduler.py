"""
The scheduler, which fires schedules that are due.

Decides when to poll the timetable, in which portions to send, and that apps take turns,
so that an app with a million due schedules does not delay the others. Any number of
schedulers may run, and any of them may be killed at any time: each step is one atomic
script, so there is no lease that could expire and no leader. Knows the timetable. Knows
nothing of the callers that created schedules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ...core.counters import LAG_S, Histogram
from ...core.schedule import Schedule, clocks_agree, round_robin
from ...errors import Unavailable
from ...store.scheduling.schedule_records import ScheduleRef
from ...store.scheduling.timetable import Timetable
from .sender import BATCH, Sender, run_all

__all__ = ["Scheduler"]

POLL_S: Final = 0.25
"""Allows two polls within the second in which a send is due, and time to send it."""

IDLE_POLL_S: Final = 1.0
"""The interval of polls for audiences while there was none. They find what another
scheduler began and left; what this one begins is served at once."""

FIRED_PER_POLL_MAX: Final = 1_000
"""Schedules fired per poll. The store fires some thousands per second, so that the
backlog of one app delays what has just become due by less than a second."""

AUDIENCES_CONCURRENT: Final = 16
"""Audiences served concurrently."""

BACK_OFF_S: Final = 1.0

_logger = logging.getLogger(__name__)


class Scheduler:
    """
    One scheduler.

    Args:
        timetable: The schedules in the store.
        clock_s: Unix time of this node.
        lag_s: Counts the delays with which schedules are fired.

    """

    def __init__(
        self,
        timetable: Timetable,
        *,
        clock_s: Callable[[], float] = time.time,
        lag_s: Histogram | None = None,
    ) -> None:
        self._lag_s = lag_s or Histogram(LAG_S)
        self._timetable = timetable
        self._firing = timetable.firing
        self._sender = Sender(timetable.recipients)
        self._clock_s = clock_s
        self._paused = False
        # Wakes the serving of audiences; whether its last poll found one.
        self._audience_begun = asyncio.Event()
        self._has_audiences = False

    @property
    def paused(self) -> bool:
        """Whether firing is paused because clocks differ."""
        return self._paused

    async def run(self) -> None:
        """Fire what is due until cancelled. Raises on unexpected errors."""
        # Separate, so that an audience of a million delays no schedule of one player.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self.fire_due, _wait_to_fire), name="fire")
            tasks.create_task(
                self._repeat(self.send_begun, self._wait_to_send), name="send"
            )

    async def fire_due(self) -> bool:
        """Fire or begin what is due; return whether more may be due already."""
        now_ms = await self._timetable.now_ms()
        if not self._check_clocks(now_ms):
            return False
        dues = await self._firing.due(now_ms, limit=FIRED_PER_POLL_MAX)
        dues = round_robin(dues, lambda due: due.app)[:FIRED_PER_POLL_MAX]
        for first in range(0, len(dues), BATCH):
            await self._fire(dues[first : first + BATCH], now_ms)
        return len(dues) >= BATCH

    async def send_begun(self) -> bool:
        """Serve audiences for one time slice; return whether recipients are left."""
        self._audience_begun.clear()
        schedules = round_robin(await self._sending(), lambda schedule: schedule.app)
        self._has_audiences = bool(schedules)
        if not schedules:
            return False
        now_ms = await self._timetable.now_ms()
        # Buckets of a spread audience have times, too.
        if not self._check_clocks(now_ms):
            return False
        more = False
        for first in range(0, len(schedules), AUDIENCES_CONCURRENT):
            batch = schedules[first : first + AUDIENCES_CONCURRENT]
            more |= await run_all(self._sender.send(s, now_ms) for s in batch)
        return more

    async def _repeat(
        self, step: Callable[[], Awaitable[bool]], wait: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            try:
                busy = await step()
            except Unavailable:
                # The next poll finds what was in progress.
                await asyncio.sleep(BACK_OFF_S * random.uniform(0.5, 1))
            else:
                await (asyncio.sleep(0) if busy else wait())

    async def _wait_to_send(self) -> None:
        if self._has_audiences:
            # Nothing announces that the next bucket of a spread audience is due.
            await _wait_to_fire()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_POLL_S * random.uniform(0.8, 1)):
                await self._audience_begun.wait()

    def _check_clocks(self, now_ms: int) -> bool:
        agree = clocks_agree(now_ms, int(self._clock_s() * 1000))
        if not agree and not self._paused:
            _logger.error(
                "schedules paused: the clocks of this node and of the store "
                "differ by %.0f s",
                abs(now_ms / 1000 - self._clock_s()),
            )
        elif agree and self._paused:
            _logger.warning("schedules resumed: the clocks agree")
        self._paused = not agree
        return agree

    async def _fire(self, dues: list[ScheduleRef], now_ms: int) -> None:
        schedules = await self._timetable.get_many(dues)
        single = [s for s in schedules if s is not None and s.player is not None]
        # Beginning a schedule without a record removes it from the timetable.
        audience = [
            (due, schedule)
            for due, schedule in zip(dues, schedules, strict=True)
            if schedule is None or schedule.player is None
        ]
        # Several overdue schedules of one player fire in the order of their times.
        single.sort(key=lambda schedule: (schedule.due_ms, schedule.created_ms))
        fired = await self._firing.fire_each(single)
        begun = await self._firing.begin_sending([due for due, _ in audience])
        if any(begun):
            self._audience_begun.set()
        sent = [*single, *(schedule for _, schedule in audience)]
        for schedule, was_first in zip(sent, [*fired, *begun], strict=True):
            if was_first and schedule is not None:
                self._lag_s.observe((now_ms - schedule.due_ms) / 1_000)

    async def _sending(self) -> list[Schedule]:
        dues = await self._firing.sending()
        schedules = await self._timetable.get_many(dues)
        return [schedule for schedule in schedules if schedule is not None]


async def _wait_to_fire() -> None:
    await asyncio.sleep(POLL_S * random.uniform(0.8, 1))

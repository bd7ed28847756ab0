"""
The scheduler, which fires schedules that are due.

Decides when to look at the timetable, in which portions to send, and that apps take
turns, so that an app with a million due schedules does not delay the others. Any number
of schedulers may run, and any of them may be killed at any time: each step is one
atomic script, so there is no lease that could expire and no leader. Knows the
timetable. Knows nothing of the callers that created schedules.

A scheduler knows when each bucket is due, and sleeps until then. The scripts that add
or move a schedule announce it (`store.scheduling.notices`), and a scheduler looks at
every bucket when it has subscribed. A notice is a wake-up, not the truth: each second
the scheduler reads the store's clock and looks at the next buckets in turn, which finds
what no notice has told of. A schedule that was paused for too long is found like one
that is due, and is cancelled. While notices do not arrive it looks at all buckets, four
times per second.

What is damaged in the store stalls itself only. A schedule whose record is damaged, or
whose player's inbox, or a key of the timetable, is reported, passed over, and tried
again once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import ResponseError

from ...core.agenda import Agenda
from ...core.counters import LAG_S, Histogram
from ...core.schedule import Schedule, ScheduleState, clocks_agree, round_robin
from ...store.client.faults import StoreFaults
from ...store.keys import BUCKETS
from ...store.logs.settings import DAY_MS
from ...store.scheduling.firing import PART
from ...store.scheduling.notices import Notices
from ...store.scheduling.schedule_records import PAUSED_MAX_MS, ScheduleRef
from ...store.scheduling.timetable import Timetable
from .sender import BATCH, Sender, run_all

__all__ = ["Scheduler"]

POLL_S: Final = 0.25
"""The interval of looks while notices do not arrive, an audience is being sent, or a
schedule that is due could not be fired. Allows two within the second in which a send is
due, and time to send it."""

TICK_S: Final = 1.0
"""The interval in which a scheduler at rest reads the store's clock, which may move."""

WALK: Final = 2
"""Buckets looked at per tick, in turn: all of them in two minutes."""

JITTER_S: Final = 0.02
"""Schedulers wake up so long after a schedule is due at most, in a random order: the
first one fires it, and the others find nothing to do."""

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
        notices: Says when schedules are added or moved. Without, the scheduler looks at
            all buckets four times per second.
        clock_s: Unix time of this node.
        lag_s: Counts the delays with which schedules are fired.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        timetable: Timetable,
        *,
        notices: Notices | None = None,
        clock_s: Callable[[], float] = time.time,
        lag_s: Histogram | None = None,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._lag_s = lag_s or Histogram(LAG_S)
        self._timetable = timetable
        self._firing = timetable.firing
        self._sender = Sender(timetable.recipients, timetable.damage)
        self._notices = notices
        self._clock_s = clock_s
        self._paused = False
        self._agenda = Agenda(BUCKETS)
        self._noticed = asyncio.Event()
        self._now_ms = 0
        """The store's time at the last look."""
        # Buckets that may have audiences that are being sent, and what wakes serving.
        self._sending_in: set[int] = set(range(BUCKETS))
        self._audience_begun = asyncio.Event()
        self._has_audiences = False
        # What no notice has told of is found by walking through all buckets.
        self._fire_walk = itertools.cycle(range(BUCKETS))
        self._send_walk = itertools.cycle(range(BUCKETS))

    @property
    def paused(self) -> bool:
        """Whether firing is paused because clocks differ."""
        return self._paused

    async def run(self) -> None:
        """
        Fire what is due until cancelled.

        Survives whatever the store refuses. Raises on other errors.
        """
        # Separate, so that an audience of a million delays no schedule of one player.
        async with asyncio.TaskGroup() as tasks:
            if self._notices is not None:
                tasks.create_task(self._notices.run(self), name="notices")
            firing = self._repeat("scheduler", self._fire_next, self._wait_to_fire)
            tasks.create_task(firing, name="fire")
            sending = self._repeat(
                "scheduler's audiences", self._send_next, self._wait_to_send
            )
            tasks.create_task(sending, name="send")

    def on_due(self, bucket: int, due_ms: int) -> None:
        if due_ms < self._agenda.next_ms:
            self._noticed.set()
        self._agenda.note(bucket, due_ms)

    def on_sending(self, bucket: int) -> None:
        self._sending_in.add(bucket)
        self._audience_begun.set()

    def on_subscribed(self, bucket: int) -> None:
        self._agenda.look_at(bucket)
        self._noticed.set()
        self.on_sending(bucket)

    async def fire_due(self) -> bool:
        """Fire or begin what is due; return whether more may be due already."""
        self._agenda.look_at_all()
        return await self._fire_next()

    async def send_begun(self) -> bool:
        """Serve audiences for one time slice; return whether recipients are left."""
        self._sending_in = set(range(BUCKETS))
        return await self._send_next()

    async def _fire_next(self) -> bool:
        """Fire or begin what the agenda says is due; see `fire_due`."""
        self._noticed.clear()
        now_ms = self._now_ms = await self._timetable.now_ms()
        if not self._check_clocks(now_ms):
            return False
        if not self._is_noticed:
            self._agenda.look_at_all()
        buckets = self._agenda.begin_look(
            now_ms, itertools.islice(self._fire_walk, WALK)
        )
        look = await self._firing.look(buckets, now_ms, limit=FIRED_PER_POLL_MAX)
        dues = round_robin(look.due, lambda due: due.app)[:FIRED_PER_POLL_MAX]
        fired = 0
        for first in range(0, len(dues), BATCH):
            fired += await self._fire(dues[first : first + BATCH], now_ms)
        # A bucket with something due stays due: the next look finds what follows.
        self._agenda.end_look(look.first_ms)
        return fired > 0

    async def _send_next(self) -> bool:
        """Serve the audiences of the buckets that may have some; see `send_begun`."""
        self._audience_begun.clear()
        buckets = sorted(
            self._sending_in.union(itertools.islice(self._send_walk, WALK))
        )
        self._sending_in.clear()
        try:
            dues = await self._firing.sending(buckets)
        except BaseException:
            self._sending_in.update(buckets)
            raise
        # Recipients may be left, in buckets of a spread audience too.
        self._sending_in.update(due.bucket for due in dues)
        dues = round_robin(dues, lambda due: due.app)
        self._has_audiences = more = False
        for first in range(0, len(dues), AUDIENCES_CONCURRENT):
            # Read when it is their turn: one that was paused is no longer sent.
            batch = await self._with_records(dues[first : first + AUDIENCES_CONCURRENT])
            batch = [it for it in batch if it.state is ScheduleState.SENDING]
            if not batch:
                continue
            self._has_audiences = True
            now_ms = await self._timetable.now_ms()
            # Buckets of a spread audience have times, too.
            if not self._check_clocks(now_ms):
                return False
            more |= await run_all(self._send(s, now_ms) for s in batch)
        return more

    async def _send(self, schedule: Schedule, now_ms: int) -> bool:
        """Serve an audience; pass over it for a while if its record is damaged."""
        try:
            return await self._sender.send(schedule, now_ms)
        except ResponseError as error:
            self._note_damage(schedule, error)
            self._firing.set_aside(ScheduleRef.of(schedule))
            return False

    def _note_damage(self, one: Schedule | ScheduleRef, what: Exception | str) -> None:
        self._timetable.damage.note(PART, f"schedule {one.id} of {one.app}", what)

    async def _repeat(
        self,
        part: str,
        step: Callable[[], Awaitable[bool]],
        wait: Callable[[], Awaitable[None]],
    ) -> None:
        attempts = self._faults.attempts(part, wait_s=(BACK_OFF_S, BACK_OFF_S))
        while True:
            busy = False
            async with attempts:
                busy = await step()
            # After a failure the next look finds what was in progress.
            if not attempts.failing:
                await (asyncio.sleep(0) if busy else wait())

    @property
    def _is_noticed(self) -> bool:
        return self._notices is not None and self._notices.complete

    async def _wait_to_fire(self) -> None:
        if self._noticed.is_set() and not self._paused:
            return
        until_ms = self._agenda.next_ms
        if self._paused or not self._is_noticed or until_ms <= self._now_ms:
            # Without notices, or what is due could not be fired, or was elsewhere.
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1))
            return
        due_s = (until_ms - self._now_ms) / 1_000 + random.uniform(0, JITTER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(due_s, TICK_S)):
                await self._noticed.wait()

    async def _wait_to_send(self) -> None:
        if self._has_audiences:
            # Nothing announces that the next bucket of a spread audience is due.
            await asyncio.sleep(POLL_S * random.uniform(0.8, 1))
            return
        if not self._is_noticed:
            self._sending_in = set(range(BUCKETS))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S * random.uniform(0.8, 1)):
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

    async def _fire(self, dues: list[ScheduleRef], now_ms: int) -> int:
        """Fire or begin schedules that are due; return how many this call did."""
        single: list[Schedule] = []
        audience: list[tuple[ScheduleRef, Schedule | None]] = []
        for due, schedule in zip(
            dues, await self._timetable.get_each(dues), strict=True
        ):
            if isinstance(schedule, Exception):
                self._firing.set_aside(due)
            elif schedule is not None and schedule.state is ScheduleState.PAUSED:
                await self._end_pause(due, schedule)
            elif schedule is not None and schedule.player is not None:
                single.append(schedule)
            else:
                if schedule is None:
                    # To begin it removes it from the timetable.
                    self._note_damage(due, "has no record")
                audience.append((due, schedule))
        # Several overdue schedules of one player fire in the order of their times.
        single.sort(key=lambda schedule: (schedule.due_ms, schedule.created_ms))
        fired = await self._firing.fire_each(single)
        begun = await self._firing.begin_sending([due for due, _ in audience])
        for (due, _), was_first in zip(audience, begun, strict=True):
            if was_first:
                self.on_sending(due.bucket)
        sent = [*single, *(schedule for _, schedule in audience)]
        for schedule, was_first in zip(sent, [*fired, *begun], strict=True):
            if was_first and schedule is not None:
                self._lag_s.observe((now_ms - schedule.fires_ms) / 1_000)
        return sum(fired) + sum(begun)

    async def _end_pause(self, due: ScheduleRef, schedule: Schedule) -> None:
        """Cancel a schedule that was paused for too long."""
        ended = await self._timetable.cancel_overdue(due, campaign=schedule.campaign)
        # It may have been resumed since it was read.
        if ended.begun and ended.state is ScheduleState.CANCELLED:
            await self._timetable.recipients.close(schedule)
        if ended.done:
            _logger.warning(
                "schedule %s of %s was paused for %d days and is cancelled",
                *(due.id, due.app, PAUSED_MAX_MS // DAY_MS),
            )

    async def _with_records(self, dues: list[ScheduleRef]) -> list[Schedule]:
        schedules: list[Schedule] = []
        for due, schedule in zip(
            dues, await self._timetable.get_each(dues), strict=True
        ):
            if isinstance(schedule, Schedule):
                schedules.append(schedule)
            else:
                if schedule is None:
                    self._note_damage(due, "has no record")
                self._firing.set_aside(due)
        return schedules

"""
The timetable: what is to be sent, and when.

Decides how a schedule is entered, found, moved and cancelled, each change one script in
one slot. Knows the scripts in ``lua/`` and the shape of their replies. Knows nothing of
who may do what. What becomes of a schedule when its time has come is for `firing`, and
for `recipients` where it has an audience.

Scripts of one slot come one after the other, so whether a schedule is cancelled or goes
out is decided once, and both who asked are told the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.schedule import Schedule, ScheduleState
from ...model import App, Log
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.replicated import Replicated
from ..client.replies import ok
from ..keys import BUCKETS, named_key, schedules_key, sends_key, slots_key
from ..logs.settings import DAY_MS, DEFAULTS, LogSettings
from .firing import Firing
from .recipients import Recipients
from .schedule_records import (
    KEPT_MS,
    ScheduleRef,
    parse_record,
    parse_schedule_id,
    record_args,
)

__all__ = ["AddResult", "Timetable"]

INDEX_MS: Final = 31 * DAY_MS + KEPT_MS

_SCHEDULE: Final = Script("schedule", includes=("_inbox", "_schedule"))
_CANCEL: Final = Script("cancel", includes=("_inbox", "_schedule"))


class AddResult(NamedTuple):
    """
    What became of `Timetable.add`: it is there, or was before, or had no slot.

    `created_ms` is when it was entered, by the store's clock; 0 unless it was.
    """

    added: bool
    full: bool = False
    created_ms: int = 0


class Timetable:
    """
    All schedules of the store.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs; their clock decides what is due.
        confirmed: The way of entering, where replicas have to confirm it. What was
            written before, the recipients, is confirmed with it.

    """

    def __init__(
        self,
        redis: RedisConnection,
        settings: LogSettings = DEFAULTS,
        *,
        confirmed: Replicated | None = None,
    ) -> None:
        self._redis = redis
        self._adds = confirmed or redis
        self._settings = settings
        self.firing = Firing(redis, settings)
        """What takes schedules out when they are due."""
        self.recipients = Recipients(redis, settings)
        """Who is served by schedules that have an audience."""

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        return self._settings.clock_ms() or await self._redis.now_ms()

    async def add(self, schedule: Schedule, *, slots_max: int = 0) -> AddResult:
        """
        Enter a schedule, in one step. One that is there already stays as it is.

        Args:
            schedule: What to enter; of its times only `due_ms` is looked at, and not
                its state.
            slots_max: How many of its campaign's may hold a slot; 0 for no limit.

        Raises:
            StoreUnavailable: It was not entered.
            OutcomeUnknown: Adding it again is harmless.

        """
        (entered,) = await self.add_many([schedule], slots_max=slots_max)
        if isinstance(entered, Exception):
            raise entered
        return entered

    async def add_many(
        self, schedules: Sequence[Schedule], *, slots_max: int = 0
    ) -> list[AddResult | Exception]:
        """
        Enter schedules in one packet, each in a step of its own; see `add`.

        Failures are items of the list, of the classes that `add` raises.

        Raises:
            StoreUnavailable: None was entered.

        """
        calls = [self._add_call(schedule, slots_max) for schedule in schedules]
        return [
            reply if isinstance(reply, Exception) else _add_result(*reply)
            for reply in await self._adds.run_many(calls)
        ]

    async def get(self, app: App, schedule_id: str) -> Schedule | None:
        """Return a schedule of an app, or None. Raises StoreUnavailable."""
        ref = parse_schedule_id(app, schedule_id)
        if ref is None:
            return None
        (schedule,) = await self.get_many([ref])
        return schedule

    async def get_many(self, refs: Sequence[ScheduleRef]) -> list[Schedule | None]:
        """Return schedules in the order asked for. Raises StoreUnavailable."""
        replies = await self._redis.call_many(
            [("HGETALL", ref.record_key) for ref in refs]
        )
        return [
            parse_record(ref, ok(reply))
            for ref, reply in zip(refs, replies, strict=True)
        ]

    async def cancel(
        self,
        ref: ScheduleRef,
        *,
        campaign: str = "",
        due_ms: int | None = None,
        fragment: bytes = b"",
        expires_ms: int = 0,
    ) -> tuple[ScheduleState | None, bool]:
        """
        Cancel a schedule, or with `due_ms` move it, if it has not begun.

        One that is moved may get another `fragment`, that says when it expires then.
        With a cancelled one goes back the slot of its `campaign`. Returns the state it
        is in then (None: there is none), and whether that was done by this call. Raises
        as `add`; a second call is harmless.
        """
        state, done = await self._redis.run(
            _CANCEL,
            (*ref.keys, _slots(ref, campaign)),
            (
                *self._settings.script_args(),
                ref.member,
                ref.id,
                "" if due_ms is None else due_ms,
                KEPT_MS,
                *((fragment, expires_ms) if fragment else ()),
            ),
        )
        return (ScheduleState(state.decode()) if state else None), bool(done)

    async def list_index(self, index: str, *, bucket: int, app: App) -> list[Schedule]:
        """Return what an index lists, oldest first. Raises StoreUnavailable."""
        ids = await self._redis.call("ZRANGE", index, 0, -1)
        refs = [ScheduleRef(bucket, app, name.decode()) for name in ids]
        return [schedule for schedule in await self.get_many(refs) if schedule]

    async def page(
        self, app: App, *, after: tuple[int, str], limit: int
    ) -> list[Schedule]:
        """
        Return an app's schedules by time of making, then id, behind `after`.

        O(buckets x limit). Raises StoreUnavailable.
        """
        # Several may have been made in the same ms, some of them behind `after`.
        commands = [
            (
                "ZRANGEBYSCORE",
                schedules_key(bucket, app),
                after[0],
                "+inf",
                "WITHSCORES",
                "LIMIT",
                0,
                limit + 100,
            )
            for bucket in range(BUCKETS)
        ]
        found: list[tuple[int, str, int]] = []
        for bucket, reply in enumerate(await self._redis.call_many(commands)):
            names = ok(reply)
            for name, score in zip(names[::2], names[1::2], strict=True):
                found.append((int(score), name.decode(), bucket))
        found = sorted(item for item in found if item[:2] > after)[:limit]
        refs = [ScheduleRef(bucket, app, name) for _, name, bucket in found]
        return [schedule for schedule in await self.get_many(refs) if schedule]

    def _add_call(self, schedule: Schedule, slots_max: int) -> ScriptCall:
        ref = ScheduleRef.of(schedule)
        keys = [*ref.keys, *_indexes(schedule)]
        if slots_max:
            keys.append(_slots(ref, schedule.campaign))
        args = (
            *self._settings.script_args(),
            ref.member,
            ref.id,
            schedule.due_ms,
            slots_max,
            INDEX_MS,
            *record_args(schedule),
        )
        return ScriptCall(_SCHEDULE, keys, args)


def _add_result(outcome: int, created_ms: int) -> AddResult:
    return AddResult(outcome == 1, full=outcome == -1, created_ms=int(created_ms))


def _slots(ref: ScheduleRef, campaign: str) -> str:
    # Without a campaign a key of the same slot that nothing is ever in.
    return slots_key(ref.app, campaign) if campaign else f"{{{ref.bucket}}}:slots:"


def _indexes(schedule: Schedule) -> list[str]:
    """Return the keys of the lists that a schedule is in."""
    ref = ScheduleRef.of(schedule)
    keys = [schedules_key(ref.bucket, ref.app)]
    if schedule.player is not None and schedule.label:
        keys.append(named_key(Log(ref.app, schedule.player), schedule.label))
    if schedule.campaign:
        keys.append(sends_key(ref.app, schedule.campaign))
    return keys

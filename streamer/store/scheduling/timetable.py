"""
The timetable: the schedules, by the time they are due.

Decides how to add, find, move, pause and cancel a schedule; each change is one script
in one slot. Knows the scripts in ``lua/`` and their replies. Knows nothing of rights.
`firing` takes schedules that are due; `recipients` serves those that have an audience.

Scripts of one slot run one after another. If a schedule is cancelled and fired at the
same time, exactly one of the two succeeds, and both callers get the same result.

Firing does not find a paused schedule, except when it has been paused for too long:
then it is cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.deployment import PAUSES
from ...core.schedule import Schedule, ScheduleState
from ...errors import StoreUnavailable
from ...model import App, Log
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.damage import own, parsed
from ..client.replicated import Replicated
from ..keys import BUCKETS, bucket_of
from ..logs.settings import DAY_MS, DEFAULTS, LogSettings
from .firing import Firing
from .recipients import Recipients
from .schedule_records import (
    KEPT_MS,
    PAUSED_MAX_MS,
    ScheduleRef,
    parse_record,
    parse_schedule_id,
    record_args,
)

__all__ = ["AddResult", "ChangeResult", "Timetable"]

PART: Final = "schedules"
"""The name of this part in `Damage`."""

PORTION: Final = 500
"""Records read in one packet."""

INDEX_MS: Final = 31 * DAY_MS + KEPT_MS

_INCLUDES: Final = ("_announce", "_whole", "_inbox", "_schedule")
_SCHEDULE: Final = Script("schedule", includes=_INCLUDES)
_CANCEL: Final = Script("cancel", includes=_INCLUDES)
_PAUSE: Final = Script("pause", includes=_INCLUDES)
_RESUME: Final = Script("resume", includes=_INCLUDES)
_PURGE: Final = Script("schedule_purge", includes=("_whole",))

OVERDUE: Final = "overdue"
"""In place of a time, in ``cancel.lua``: only if it was paused for too long."""

PURGED: Final = b"}"
"""The fragment that a purged schedule has: a notification without members."""


class AddResult(NamedTuple):
    """
    The result of `Timetable.add`: added, present before, or without a free slot.

    `created_ms` is when the schedule was added, by the store's clock; otherwise 0.
    """

    added: bool
    full: bool = False
    created_ms: int = 0


class ChangeResult(NamedTuple):
    """
    The result of changing a schedule.

    `state` is its state afterwards, None if there is no such schedule; `done` is
    whether this call has changed it. With `begun`, sending it had begun before.
    """

    state: ScheduleState | None
    done: bool
    begun: bool = False


class Timetable:
    """
    All schedules of the store.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs; their clock decides what is due.
        confirmed: The connection for adding, if replicas have to confirm it. It also
            confirms the recipients, which were written before.

    """

    def __init__(
        self,
        redis: RedisConnection,
        settings: LogSettings = DEFAULTS,
        *,
        confirmed: Replicated | None = None,
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._adds = confirmed or redis
        self._settings = settings
        self.damage = redis.damage
        """Told of schedules that are damaged."""
        self.firing = Firing(redis, settings)
        """Takes schedules out of the timetable when they are due."""
        self.recipients = Recipients(redis, settings)
        """The recipients of schedules that have an audience."""

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        return self._settings.clock_ms() or await self._redis.now_ms()

    async def add(self, schedule: Schedule, *, slots_max: int = 0) -> AddResult:
        """
        Add a schedule, in one step. One with the same id stays as it is.

        Args:
            schedule: The schedule. Its state and its times but `due_ms` are ignored.
            slots_max: Number of slots of its campaign; 0 for no limit.

        Raises:
            StoreUnavailable: The schedule was not added.
            OutcomeUnknown: It may have been. Adding it again is harmless.

        """
        (entered,) = await self.add_many([schedule], slots_max=slots_max)
        if isinstance(entered, Exception):
            raise entered
        return entered

    async def add_many(
        self, schedules: Sequence[Schedule], *, slots_max: int = 0
    ) -> list[AddResult | Exception]:
        """
        Add schedules in one packet, each atomically; see `add`.

        Failures are items of the list, of the classes that `add` raises.

        Raises:
            StoreUnavailable: None was added.

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
        (schedule,) = await self.get_each([ref])
        if isinstance(schedule, Exception):
            raise schedule
        return schedule

    async def get_many(self, refs: Sequence[ScheduleRef]) -> list[Schedule | None]:
        """
        Return schedules in the order of `refs`. Raises StoreUnavailable.

        None stands for one that does not exist, or whose record is damaged.
        """
        return [
            None if isinstance(schedule, Exception) else schedule
            for schedule in await self.get_each(refs)
        ]

    async def get_each(
        self, refs: Sequence[ScheduleRef]
    ) -> list[Schedule | ResponseError | None]:
        """Return schedules as `get_many` does, with an error for a damaged record."""
        replies = await self._redis.call_many(
            [("HGETALL", ref.record_key(self._keys)) for ref in refs]
        )
        schedules = []
        for ref, reply in zip(refs, replies, strict=True):
            schedule = own(reply)
            if not isinstance(schedule, Exception):
                schedule = parsed(parse_record, ref, reply)
            if isinstance(schedule, Exception):
                self._redis.damage.note(PART, ref.record_key(self._keys), schedule)
            schedules.append(schedule)
        return schedules

    async def cancel(
        self,
        ref: ScheduleRef,
        *,
        campaign: str = "",
        due_ms: int | None = None,
        fragment: bytes = b"",
        expires_ms: int = 0,
    ) -> ChangeResult:
        """
        Cancel a schedule that is pending or paused, or with `due_ms` move it.

        A schedule that was paused after it had begun is cancelled, but not moved, and
        `recipients` have to be closed. A moved schedule may get another `fragment`,
        which states its new expiry. Cancelling frees the slot of its `campaign`, unless
        it had begun. Raises as `add`; a second call is harmless.
        """
        change = "" if due_ms is None else due_ms
        renewed = (fragment, expires_ms) if fragment else ()
        return await self._cancel(ref, campaign, change, renewed)

    async def cancel_overdue(
        self, ref: ScheduleRef, *, campaign: str = ""
    ) -> ChangeResult:
        """Cancel a schedule that was paused for `PAUSED_MAX_MS`; see `cancel`."""
        return await self._cancel(ref, campaign, OVERDUE)

    async def pause(self, ref: ScheduleRef) -> ChangeResult:
        """
        Pause a schedule that is pending or being sent.

        Raises as `add`, and StoreUnavailable while an older node could not read it; a
        second call is harmless.
        """
        if self._redis.terms.level < PAUSES:
            words = "a node of an older version cannot read paused schedules"
            raise StoreUnavailable(words, where=self._redis.address.where)
        args = (*self._settings.script_args(), ref.member, PAUSED_MAX_MS)
        state, done = await self._redis.run(_PAUSE, self._pause_keys(ref), args)
        return ChangeResult(_state(state), bool(done))

    async def resume(
        self,
        ref: ScheduleRef,
        *,
        due_ms: int,
        fragment: bytes = b"",
        expires_ms: int = 0,
    ) -> ChangeResult | None:
        """
        Resume a schedule that is paused.

        It may get another `fragment`, which states its new expiry. Raises as `add`; a
        second call is harmless.

        Args:
            ref: The schedule.
            due_ms: When it is due, as the caller has read.
            fragment: The fragment that replaces the present one.
            expires_ms: When that expires.

        Returns:
            The result, or None if it is due at another time and nothing was done.

        """
        state, done = await self._redis.run(
            _RESUME,
            self._pause_keys(ref),
            (
                *self._settings.script_args(),
                ref.member,
                self._keys.notices(ref.bucket),
                due_ms,
                *((fragment, expires_ms) if fragment else ()),
            ),
        )
        return None if done < 0 else ChangeResult(_state(state), bool(done))

    async def _cancel(
        self,
        ref: ScheduleRef,
        campaign: str,
        change: str | int,
        renewed: Sequence[bytes | int] = (),
    ) -> ChangeResult:
        paused = self._keys.paused(ref.bucket, ref.app)
        state, done, begun = await self._redis.run(
            _CANCEL,
            (*ref.keys(self._keys), self._slots(ref, campaign), paused),
            (
                *self._settings.script_args(),
                ref.member,
                ref.id,
                change,
                KEPT_MS,
                self._keys.notices(ref.bucket),
                *renewed,
            ),
        )
        return ChangeResult(_state(state), bool(done), bool(begun))

    async def purge(self, ref: ScheduleRef) -> ScheduleState | None:
        """
        Remove the text of a schedule that was sent or cancelled; return its state.

        In another state nothing changes; None: no such schedule. Raises as `add`; a
        second call is harmless.
        """
        keys = (ref.record_key(self._keys),)
        state = await self._redis.run(_PURGE, keys, (PURGED,))
        return ScheduleState(state.decode()) if state else None

    async def purge_sent(self, log: Log, fragment: bytes) -> None:
        """
        Remove a text from the schedules that were sent to a log alone.

        O(schedules of the app in the log's bucket). Raises as `add`.
        """
        bucket = bucket_of(log.app, log.name)
        index = self._keys.schedules(bucket, log.app)
        ids = await self._redis.call("ZRANGE", index, 0, -1)
        for first in range(0, len(ids), PORTION):
            refs = [
                ref
                for name in ids[first : first + PORTION]
                if (ref := parse_schedule_id(log.app, name.decode(errors="replace")))
            ]
            for schedule in await self.get_many(refs):
                if (
                    schedule is not None
                    and schedule.player == log.name
                    # Sent late, it got a member more at its beginning.
                    and fragment.endswith(schedule.fragment)
                    and schedule.fragment != PURGED
                ):
                    await self.purge(ScheduleRef.of(schedule))

    async def list_index(self, index: str, *, bucket: int, app: App) -> list[Schedule]:
        """Return the schedules of an index, oldest first. Raises StoreUnavailable."""
        ids = await self._redis.call("ZRANGE", index, 0, -1)
        refs = [
            ref
            for name in ids
            if (ref := parse_schedule_id(app, name.decode(errors="replace")))
            and ref.bucket == bucket
        ]
        return [schedule for schedule in await self.get_many(refs) if schedule]

    async def page(
        self, app: App, *, after: tuple[int, str], limit: int
    ) -> list[Schedule]:
        """
        Return an app's schedules by creation time, then id, that follow `after`.

        O(buckets x limit). Raises StoreUnavailable.
        """
        # Several may have been created in the same ms, some of them after `after`.
        commands = [
            (
                "ZRANGEBYSCORE",
                self._keys.schedules(bucket, app),
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
            names = own(reply)
            if isinstance(names, Exception):
                key = self._keys.schedules(bucket, app)
                self._redis.damage.note(PART, key, names)
                continue
            for name, score in zip(names[::2], names[1::2], strict=True):
                ref = parse_schedule_id(app, name.decode(errors="replace"))
                if ref is not None and ref.bucket == bucket:
                    found.append((int(float(score)), ref.id, bucket))
        found = sorted(item for item in found if item[:2] > after)[:limit]
        refs = [ScheduleRef(bucket, app, name) for _, name, bucket in found]
        return [schedule for schedule in await self.get_many(refs) if schedule]

    def _add_call(self, schedule: Schedule, slots_max: int) -> ScriptCall:
        ref = ScheduleRef.of(schedule)
        keys = [*ref.keys(self._keys), *self._indexes(schedule)]
        if slots_max:
            keys.append(self._slots(ref, schedule.campaign))
        args = (
            *self._settings.script_args(),
            ref.member,
            ref.id,
            schedule.due_ms,
            slots_max,
            INDEX_MS,
            self._keys.notices(ref.bucket),
            *record_args(schedule),
        )
        return ScriptCall(_SCHEDULE, keys, args)

    def _pause_keys(self, ref: ScheduleRef) -> tuple[str, ...]:
        keys = self._keys
        paused = keys.paused(ref.bucket, ref.app)
        return *ref.keys(keys), keys.sending(ref.bucket), paused

    def _slots(self, ref: ScheduleRef, campaign: str) -> str:
        # Without a campaign: a key of the same slot that is never written.
        keys = self._keys
        return keys.slots(ref.app, campaign) if campaign else keys.no_slots(ref.bucket)

    def _indexes(self, schedule: Schedule) -> list[str]:
        """Return the keys of the indexes that list a schedule."""
        ref = ScheduleRef.of(schedule)
        keys = [self._keys.schedules(ref.bucket, ref.app)]
        if schedule.player is not None and schedule.label:
            keys.append(self._keys.named(Log(ref.app, schedule.player), schedule.label))
        if schedule.campaign:
            keys.append(self._keys.sends(ref.app, schedule.campaign))
        return keys


def _state(name: bytes) -> ScheduleState | None:
    return ScheduleState(name.decode()) if name else None


def _add_result(outcome: int, created_ms: int) -> AddResult:
    return AddResult(outcome == 1, full=outcome == -1, created_ms=int(created_ms))

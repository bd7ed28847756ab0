"""
Scheduling: entering sends into the timetable, asking for them, cancelling them.

Decides the rights each needs and that everything is checked before anything is written.
Knows the timetable. Knows nothing of when a send goes out: `scheduler` does.

A schedule that was entered without an error is as durable as a notification. It goes
out not before its time by the store's clock, once, and late rather than never.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..core.access import Caller
from ..core.schedule import AHEAD_MAX_MS, Schedule, State
from ..errors import Conflict, FieldError, Invalid, NotFound
from ..model import App, Log, Notification, Player
from ..store.inbox import ONCE_MS
from ..store.keys import BUCKETS, bucket_of, named_key, request_key
from ..store.link import Link
from ..store.timetable import Due, Timetable, new_schedule_id, parse_due
from .publisher import checked_key, encode

__all__ = ["SPREAD_MAX_MS", "Cancelled", "Schedules"]

SPREAD_MAX_MS: Final = 240 * 60_000
"""Four hours, which is what Teak's dashboard offers."""

RECIPIENTS_MAX: Final = 100_000


class Cancelled(NamedTuple):
    """The state of a schedule after it was asked to be cancelled or moved."""

    schedule_id: str
    state: State
    done: bool
    """Whether it was cancelled or moved; else it had gone out, or been cancelled."""


class Schedules:
    """
    What a caller may do with schedules.

    Args:
        link: The way to the store, for idempotency keys.
        timetable: Where they go.
        clock_s: Unix time of this node, against which the 30 days are measured.

    """

    def __init__(
        self, link: Link, timetable: Timetable, *, clock_s: Callable[[], float]
    ) -> None:
        self._link = link
        self._timetable = timetable
        self._clock_s = clock_s

    def now_ms(self) -> int:
        """Return this node's time."""
        return int(self._clock_s() * 1000)

    async def schedule(
        self,
        caller: Caller,
        players: Sequence[Player],
        notification: Notification,
        *,
        due_ms: int,
        spread_ms: int = 0,
        label: str = "",
        idempotency_key: str | None = None,
    ) -> tuple[Schedule, bool]:
        """
        Schedule one notification for players, as one schedule that is cancelled whole.

        A time in the past means at once. A player that is named twice gets it once.
        Returns the schedule, and whether an earlier request with the same idempotency
        key had made it.

        Raises:
            Forbidden: The caller may not send to one of the players.
            Invalid: The time is more than 30 days ahead, or something is too large.
            Conflict: The idempotency key was used for something else.
            StoreAway: Nothing was scheduled.
            OutcomeUnknown: It may have been; repeat it with the idempotency key.

        """
        names = list(dict.fromkeys(players))
        starts_ms = self._check(caller, names, due_ms, spread_ms)
        (fragment,) = encode([notification])
        bucket = bucket_of(caller.app, names[0]) if len(names) == 1 else None
        seed = await self._claim(
            caller, idempotency_key, [fragment, str((due_ms, spread_ms)), *names]
        )
        due = Due(*self._new_id(caller.app, bucket, seed))
        if seed and (known := await self._timetable.get(caller.app, due.id)):
            return known, True
        buckets = [] if bucket is not None else await self._timetable.enlist(due, names)
        schedule = Schedule(
            caller.app,
            due.id,
            State.PENDING,
            starts_ms,
            self.now_ms(),
            fragment,
            player=names[0] if bucket is not None else None,
            buckets=tuple(buckets),
            total=len(names),
            spread_ms=spread_ms,
            source=notification.source or "",
            label=label,
        )
        entered = await self._timetable.add(schedule)
        return schedule, not entered.added

    async def schedule_each(
        self,
        caller: Caller,
        players: Sequence[Player],
        notification: Notification,
        *,
        due_ms: int,
        label: str,
        idempotency_key: str | None = None,
    ) -> list[str]:
        """
        Schedule one notification for each player, each a schedule of its own.

        Returns an id for each of `players`, in their order; one that is named twice has
        the same id twice. They can be found again by player and `label`. Raises as
        `schedule`; all is checked before the first is entered.
        """
        names = list(dict.fromkeys(players))
        starts_ms = self._check(caller, names, due_ms, 0)
        (fragment,) = encode([notification])
        seed = await self._claim(
            caller, idempotency_key, [fragment, str(due_ms), label, *names]
        )
        ids: dict[Player, str] = {}
        for player in names:
            bucket = bucket_of(caller.app, player)
            own_seed = f"{seed}\0{player}" if seed else ""
            ids[player] = new_schedule_id(bucket, seed=own_seed)
        schedules = [
            Schedule(
                caller.app,
                ids[player],
                State.PENDING,
                starts_ms,
                self.now_ms(),
                fragment,
                player=player,
                total=1,
                source=notification.source or "",
                label=label,
            )
            for player in names
        ]
        # At once, so that they share packets.
        async with asyncio.TaskGroup() as tasks:
            for schedule in schedules:
                assert schedule.player is not None
                log = Log(caller.app, schedule.player)
                adding = self._timetable.add(schedule, indexes=[named_key(log, label)])
                tasks.create_task(adding)
        return [ids[player] for player in players]

    async def get(self, caller: Caller, schedule_id: str) -> Schedule:
        """
        Return a schedule.

        Raises:
            Forbidden: The caller may not see schedules.
            NotFound: There is none of that id in the caller's app.
            StoreAway: It cannot be read now.

        """
        caller.require_scope("schedules:write")
        schedule = await self._timetable.get(caller.app, schedule_id)
        if schedule is None:
            raise NotFound("the schedule")
        return schedule

    async def page(
        self, caller: Caller, *, after: tuple[int, str], limit: int
    ) -> list[Schedule]:
        """Return the app's schedules by time of making. Raises as `get`."""
        caller.require_scope("schedules:write")
        return await self._timetable.page(caller.app, after=after, limit=limit)

    async def cancel(self, caller: Caller, schedule_id: str) -> Cancelled:
        """
        Cancel a schedule that has not begun.

        Whether it was cancelled or goes out is decided in one step; `Cancelled.done`
        says which. Raises as `get`, and OutcomeUnknown: asking again is harmless.
        """
        return await self._change(caller, schedule_id, None)

    async def move(self, caller: Caller, schedule_id: str, due_ms: int) -> Cancelled:
        """Move a schedule that has not begun to another time; see `cancel`."""
        return await self._change(caller, schedule_id, self._check_time(due_ms))

    async def cancel_named(
        self, caller: Caller, players: Sequence[Player], label: str
    ) -> list[str]:
        """
        Cancel what is pending for players under a label; return the ids cancelled.

        Raises as `cancel`.
        """
        caller.require_scope("schedules:write")
        cancelled = []
        for player in dict.fromkeys(players):
            log = Log(caller.app, player)
            bucket = bucket_of(caller.app, player)
            listed = await self._timetable.listed(
                named_key(log, label), bucket=bucket, app=caller.app
            )
            for schedule in listed:
                if schedule.state is State.PENDING:
                    due = Due(bucket, caller.app, schedule.id)
                    _, done = await self._timetable.cancel(due)
                    cancelled += [schedule.id] if done else []
        return cancelled

    async def _change(
        self, caller: Caller, schedule_id: str, due_ms: int | None
    ) -> Cancelled:
        caller.require_scope("schedules:write")
        due = parse_due(caller.app, schedule_id)
        if due is None:
            raise NotFound("the schedule")
        state, done = await self._timetable.cancel(due, due_ms=due_ms)
        if state is None:
            raise NotFound("the schedule")
        return Cancelled(schedule_id, state, done)

    def _check(
        self, caller: Caller, players: Sequence[Player], due_ms: int, spread_ms: int
    ) -> int:
        """Return when to begin, if all is as it has to be. Raises Rejected."""
        assert players
        for player in players:
            caller.require_write(player)
        starts_ms = self._check_time(due_ms)
        if not 0 <= spread_ms <= SPREAD_MAX_MS:
            problem = f"must be at most {SPREAD_MAX_MS // 60_000} minutes"
            raise Invalid(FieldError(("body", "spread_s"), problem))
        if len(players) > RECIPIENTS_MAX:
            problem = f"has {len(players)} players, allowed {RECIPIENTS_MAX}"
            raise Invalid(FieldError(("body", "to", "players"), problem))
        return starts_ms

    def _check_time(self, due_ms: int) -> int:
        """Return the time to use: one that is past means now, and is not late."""
        if due_ms - self.now_ms() > AHEAD_MAX_MS:
            problem = "lies more than 30 days ahead"
            raise Invalid(FieldError(("body", "send_at"), problem))
        return max(due_ms, self.now_ms())

    async def _claim(
        self, caller: Caller, key: str | None, parts: Sequence[str | bytes]
    ) -> str:
        """Return the seed of the ids for a key; "" without one. Raises Conflict."""
        if key is None:
            return ""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part if isinstance(part, bytes) else part.encode())
            digest.update(b"\0")
        mine = digest.hexdigest()[:32]
        before = await self._link.call(
            "SET",
            request_key(caller.app, checked_key(key)),
            mine,
            "NX",
            "GET",
            "PX",
            ONCE_MS,
            write=True,
        )
        if before is not None and before != mine.encode():
            raise Conflict
        return f"{caller.app}\0{key}\0{mine}"

    @staticmethod
    def _new_id(app: App, bucket: int | None, seed: str) -> tuple[int, App, str]:
        if bucket is None:
            # Anywhere, but the same place for the same request.
            raw = hashlib.sha256(seed.encode()).digest()[-1] if seed else None
            bucket = raw if raw is not None else int(new_schedule_id(0)[-2:], 16)
        assert 0 <= bucket < BUCKETS
        return bucket, app, new_schedule_id(bucket, seed=seed)

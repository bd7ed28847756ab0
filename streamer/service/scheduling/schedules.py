"""
Schedules: creating, reading, moving, pausing and cancelling them.

Decides the rights that each operation requires, and that everything is checked before
anything is written. Knows the timetable. Knows nothing of firing: see `scheduler`.

A schedule whose creation returned is as durable as a notification. It is sent once, not
before its time by the store's clock, and late rather than never.

A paused schedule is not sent. One whose time passes meanwhile is sent when it is
resumed. A schedule for several players can also be paused while it is being sent; those
who are being served in that moment still get it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final, NamedTuple

from ...core.access.rights import Caller
from ...core.schedule import Schedule, ScheduleState
from ...errors import (
    FieldError,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    Unavailable,
)
from ...model import Log, Notification, Player, everyone_log
from ...store.client.connection import RedisConnection
from ...store.client.faults import STORE_FAILURES
from ...store.keys import bucket_of
from ...store.scheduling.schedule_records import (
    PAUSED_MAX_MS,
    ScheduleRef,
    new_schedule_id,
    new_schedule_ref,
    parse_schedule_id,
)
from ...store.scheduling.timetable import AddResult, ChangeResult, Timetable
from ..node.quotas import Charge, Quotas
from ..privacy.audit import Audit, recording, target_of
from ..publishing.drafts import addressed_to, encode
from ..publishing.idempotency import IdempotentRequest, as_first_answered
from .planning import (
    rescheduled_fragment,
    resumed_fragment,
    start_ms,
    with_notification,
)
from .sender import run_all

__all__ = ["RECIPIENTS_MAX", "SPREAD_MAX_MS", "CancelResult", "Schedules"]

SPREAD_MAX_MS: Final = 240 * 60_000
"""Four hours, which is what Teak's dashboard offers."""

RECIPIENTS_MAX: Final = 100_000

_OPEN: Final = (ScheduleState.PENDING, ScheduleState.PAUSED)
"""States in which a schedule can be moved and cancelled."""


class CancelResult(NamedTuple):
    """
    The result of changing a schedule; `state` is its state after that.
    """

    schedule_id: str
    state: ScheduleState
    done: bool
    """Whether this call changed it; else its state did not allow it."""


class Schedules:
    """
    The operations on schedules, with the rights of a caller.

    Args:
        redis: The connection to the store, for idempotency keys.
        timetable: The schedules in the store.
        quotas: The quotas of apps; without, nothing is limited.
        audit: Records schedules to everyone, and cancellations.

    """

    def __init__(
        self,
        redis: RedisConnection,
        timetable: Timetable,
        quotas: Quotas | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._redis = redis
        self._timetable = timetable
        self._quotas = quotas or Quotas.unlimited(redis)

    async def now_ms(self) -> int:
        """
        Return the store's time, which decides what is due.

        A node's own clock is not used, so that a wrong one has no effect.

        Raises:
            StoreUnavailable: The store cannot be reached.

        """
        return await self._timetable.now_ms()

    async def schedule(
        self,
        caller: Caller,
        players: Sequence[str],
        notification: Notification,
        *,
        due_ms: int,
        ttl_ms: int = 0,
        spread_ms: int = 0,
        to_latest: bool = False,
        label: str = "",
        idempotency_key: str | None = None,
        spelling: str = "",
    ) -> tuple[Schedule, bool]:
        """
        Schedule one notification for all players, as one schedule.

        An audience is a single recipient, by the name of its log. A past time means
        now. A player that is named twice gets the notification once. O(players).

        Args:
            caller: The sender.
            players: The recipients, 1 to `RECIPIENTS_MAX`.
            notification: The notification.
            due_ms: When to send it, in ms of the store's time.
            ttl_ms: How long after that it expires; 0 if its own `expires_at` applies.
            spread_ms: The time over which the recipients are spread, up to
                `SPREAD_MAX_MS`.
            to_latest: Whether it is delivered live only to the device that a player
                used last.
            label: A name for `cancel_by_label`.
            idempotency_key: Identifies repetitions for 24 hours.
            spelling: The only player as the request spells it.

        Returns:
            The schedule, and whether an earlier request with the same idempotency key
            created it.

        Raises:
            Forbidden: The caller may not send to one of the players.
            Invalid: The time is more than 30 days ahead or not before the notification
                expires, or something is too large.
            OverQuota: A quota of the app is used up; the key is not claimed.
            Conflict: The idempotency key was used for another request.
            StoreUnavailable: Nothing was scheduled.
            OutcomeUnknown: It may have been scheduled; retry with the idempotency key.

        """
        everyone = everyone_log(caller.app)
        about: AbstractAsyncContextManager[dict[str, Any]] = nullcontext({})
        if everyone.name in players:
            about = recording(
                self._audit, caller, "publish.everyone", target=target_of(everyone)
            )
        async with about as details:
            schedule, replayed = await self._schedule(
                caller,
                players,
                notification,
                due_ms=due_ms,
                ttl_ms=ttl_ms,
                spread_ms=spread_ms,
                to_latest=to_latest,
                label=label,
                idempotency_key=idempotency_key,
                spelling=spelling,
            )
            details.update(schedule=schedule.id, replayed=replayed)
        return schedule, replayed

    async def _schedule(
        self,
        caller: Caller,
        players: Sequence[str],
        notification: Notification,
        *,
        due_ms: int,
        ttl_ms: int,
        spread_ms: int,
        to_latest: bool,
        label: str,
        idempotency_key: str | None,
        spelling: str,
    ) -> tuple[Schedule, bool]:
        recipients = list(dict.fromkeys(players))
        _check_request(caller, recipients, spread_ms)
        notification = addressed_to(Log(caller.app, recipients[0]), notification)
        (fragment,) = encode([notification])
        starts_ms = start_ms(due_ms, await self.now_ms())
        bucket = bucket_of(caller.app, recipients[0]) if len(recipients) == 1 else None
        settings = str((due_ms, spread_ms, ttl_ms, to_latest))
        parts: tuple[str | bytes, ...] = fragment, settings, *recipients
        request = IdempotentRequest.of(caller.app, idempotency_key, parts)
        due = new_schedule_ref(caller.app, bucket, seed=request.seed)
        if request.seed and (earlier := await self._timetable.get(caller.app, due.id)):
            return as_first_answered(earlier), True
        schedule = Schedule(
            caller.app,
            due.id,
            ScheduleState.PENDING,
            starts_ms,
            0,
            fragment,
            player=recipients[0] if bucket is not None else None,
            total=len(recipients),
            spread_ms=spread_ms,
            label=label,
            to_latest=to_latest,
            spelling=spelling if spelling != recipients[0] else "",
        )
        schedule = with_notification(schedule, notification, ttl_ms=ttl_ms)
        async with self._charged([schedule], recipients) as charge:
            await request.claim(self._redis)
            if bucket is None:
                buckets = await self._timetable.recipients.enlist(due, recipients)
                schedule = schedule._replace(buckets=tuple(buckets))
            entered = await self._timetable.add(schedule)
            if entered.added:
                return schedule._replace(created_ms=entered.created_ms), False
            charge.refund()
        # A concurrent repetition of this request was faster.
        return as_first_answered(await self.get_checked(caller, schedule.id)), True

    async def schedule_each(
        self,
        caller: Caller,
        players: Sequence[Player],
        notification: Notification,
        *,
        due_ms: int,
        label: str,
        extra_part: str = "",
        to_latest: bool = False,
        idempotency_key: str | None = None,
    ) -> tuple[list[str], bool]:
        """
        Schedule one notification for each player, as one schedule per player.

        Schedules that are due already are fired at once. Everything is checked before
        the first schedule is added; they are not added atomically.

        Args:
            caller: The sender.
            players: The recipients, 1 to `RECIPIENTS_MAX`.
            notification: The notification.
            due_ms: When to send it, in ms of the store's time.
            label: A name for `cancel_by_label`.
            extra_part: What else has to be equal in a repetition.
            to_latest: Whether it is delivered live only to the device that a player
                used last.
            idempotency_key: Identifies repetitions for 24 hours.

        Returns:
            The ids of the schedules in the order of `players`; a player that is named
            twice has the same id twice. And whether an earlier request with the same
            idempotency key had created them all.

        Raises as `schedule`.
        """
        recipients = list(dict.fromkeys(players))
        _check_request(caller, recipients, 0)
        (fragment,) = encode([notification])
        now_ms = await self.now_ms()
        starts_ms = start_ms(due_ms, now_ms)
        parts: tuple[str | bytes, ...] = (
            fragment,
            str(due_ms),
            label,
            extra_part,
            *players,
        )
        request = IdempotentRequest.of(caller.app, idempotency_key, parts)
        ids: dict[Player, str] = {}
        for player in recipients:
            bucket = bucket_of(caller.app, player)
            own_seed = f"{request.seed}\0{player}" if request.seed else ""
            ids[player] = new_schedule_id(bucket, seed=own_seed)
        common = Schedule(
            caller.app,
            "",
            ScheduleState.PENDING,
            starts_ms,
            0,
            fragment,
            total=1,
            label=label,
            to_latest=to_latest,
        )
        common = with_notification(common, notification)
        schedules = [common._replace(id=ids[p], player=p) for p in recipients]
        try:
            entered = await self._add_charged(request, schedules, recipients)
        except StoreFull:
            # A full store may not even charge. It still knows what a repetition has
            # scheduled.
            if not await request.is_claimed(self._redis):
                raise
            entered = await self._add_all(schedules)
        if starts_ms <= now_ms:
            await self._fire_now(schedules)
        return [ids[player] for player in players], not any(entered)

    async def _add_charged(
        self,
        request: IdempotentRequest,
        schedules: Sequence[Schedule],
        recipients: Sequence[Player],
    ) -> list[bool]:
        async with self._charged(schedules, recipients) as charge:
            await request.claim(self._redis)
            entered = await self._add_all(schedules)
            earlier = [
                s.id for s, new in zip(schedules, entered, strict=True) if not new
            ]
            charge.refund(len(earlier) / len(schedules))
            await charge.release_slots(earlier)
        return entered

    async def get(self, caller: Caller, schedule_id: str) -> Schedule:
        """
        Return a schedule.

        Raises:
            Forbidden: The caller may not read schedules.
            NotFound: The caller's app has no schedule of that id.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_scope("schedules:write")
        return await self.get_checked(caller, schedule_id)

    async def get_checked(self, caller: Caller, schedule_id: str) -> Schedule:
        """
        Return a schedule without checking scopes. Raises NotFound, StoreUnavailable.
        """
        schedule = await self._timetable.get(caller.app, schedule_id)
        if schedule is None:
            raise NotFound("the schedule")
        return schedule

    async def page(
        self, caller: Caller, *, after: tuple[int, str], limit: int
    ) -> list[Schedule]:
        """Return the app's schedules by time of creation. Raises as `get`."""
        caller.require_scope("schedules:write")
        return await self._timetable.page(caller.app, after=after, limit=limit)

    async def cancel(
        self,
        caller: Caller,
        schedule_id: str,
        *,
        purge: bool = False,
        reason: str = "",
    ) -> CancelResult:
        """
        Cancel a schedule that is paused, or has not begun to be sent.

        One atomic step decides whether it is cancelled or sent; see
        `CancelResult.done`. Of one that was paused while it was being sent, nothing
        more is sent. Raises as `get`, and OutcomeUnknown: a retry is safe.

        Args:
            caller: The caller.
            schedule_id: The schedule.
            purge: Whether to remove its text from the store, also if it was sent or
                cancelled before. What was sent is purged by its own id.
            reason: Why, for the audit log.

        """
        async with recording(
            self._audit,
            caller,
            "purge" if purge else "schedule.cancel",
            target=f"schedule:{schedule_id}",
            reason=reason,
        ) as details:
            result = await self._change(caller, schedule_id, None)
            details["state"] = result.state.value
            if purge and (ref := parse_schedule_id(caller.app, schedule_id)):
                state = await self._timetable.purge(ref)
                if state is None:
                    raise NotFound("the schedule")
                result = result._replace(state=state)
        return result

    async def pause(
        self, caller: Caller, schedule_id: str, *, reason: str = ""
    ) -> CancelResult:
        """
        Pause a schedule that is pending, or that is being sent to several players.

        It can be resumed for 90 days, then it is cancelled. `CancelResult.done` is
        whether this call has paused it. Raises as `cancel`.
        """
        async with recording(
            self._audit,
            caller,
            "schedule.pause",
            target=f"schedule:{schedule_id}",
            reason=reason,
        ) as details:
            schedule = await self._to_change(caller, schedule_id)
            # The recipients have to live as long as the pause may last.
            await self._timetable.recipients.renew(schedule)
            paused = await self._timetable.pause(ScheduleRef.of(schedule))
            result = _result(schedule_id, paused)
            if result.done and not schedule.begun_ms:
                until_ms = await self.now_ms() + PAUSED_MAX_MS
                await self._quotas.move_schedule_slot(caller.app, schedule_id, until_ms)
            details["state"] = result.state.value
        return result

    async def resume(
        self, caller: Caller, schedule_id: str, *, reason: str = ""
    ) -> CancelResult:
        """
        Resume a paused schedule; if its time has passed, it is sent at once.

        `CancelResult.done` is whether this call has resumed it. Raises as `cancel`, and
        TooLate: the notification has expired.
        """
        async with recording(
            self._audit,
            caller,
            "schedule.resume",
            target=f"schedule:{schedule_id}",
            reason=reason,
        ) as details:
            result = await self._resume(caller, schedule_id)
            details["state"] = result.state.value
        return result

    async def _resume(self, caller: Caller, schedule_id: str) -> CancelResult:
        while True:
            schedule = await self._to_change(caller, schedule_id)
            if schedule.state is not ScheduleState.PAUSED:
                return CancelResult(schedule_id, schedule.state, False)
            now_ms = await self.now_ms()
            fragment, expires_ms = resumed_fragment(schedule, now_ms)
            await self._timetable.recipients.renew(schedule)
            resumed = await self._timetable.resume(
                ScheduleRef.of(schedule),
                due_ms=schedule.due_ms,
                fragment=fragment,
                expires_ms=expires_ms,
            )
            # None: it was moved since it was read, so its expiry may be another one.
            if resumed is not None:
                break
        result = _result(schedule_id, resumed)
        if result.done and not schedule.begun_ms:
            due_ms = max(now_ms, schedule.due_ms)
            await self._quotas.move_schedule_slot(caller.app, schedule_id, due_ms)
        return result

    async def _to_change(self, caller: Caller, schedule_id: str) -> Schedule:
        """Return a schedule that the caller may change. Raises as `get`."""
        caller.require_scope("schedules:write")
        schedule = await self.get_checked(caller, schedule_id)
        if schedule.campaign:
            caller.require_scope("campaigns:write")
        return schedule

    async def move(self, caller: Caller, schedule_id: str, due_ms: int) -> CancelResult:
        """
        Move a schedule that has not begun to be sent to another time; see `cancel`.

        One that is paused stays paused.
        """
        caller.require_scope("schedules:write")
        starts_ms = start_ms(due_ms, await self.now_ms())
        return await self._change(caller, schedule_id, starts_ms)

    async def cancel_many(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """
        Cancel schedules of one player each; return the ids of the cancelled ones.

        Other schedules, and those already sent, are ignored. Raises as `cancel`.
        """
        caller.require_scope("schedules:write")
        async with recording(self._audit, caller, "schedule.cancel") as details:
            parsed = [parse_schedule_id(caller.app, it) for it in dict.fromkeys(ids)]
            dues = [due for due in parsed if due is not None]
            schedules = await self._timetable.get_many(dues)
            cancelled = await self._cancel_pending(
                [s for s in schedules if s is not None and s.player is not None]
            )
            details["ids"] = cancelled
        return cancelled

    async def cancel_by_label(
        self, caller: Caller, players: Sequence[Player], label: str
    ) -> list[str]:
        """
        Cancel the pending schedules of players with a label; return their ids.

        Raises as `cancel`.
        """
        caller.require_scope("schedules:write")
        async with recording(self._audit, caller, "schedule.cancel") as details:
            pending: list[Schedule] = []
            for player in dict.fromkeys(players):
                pending += await self._timetable.list_index(
                    self._redis.keys.named(Log(caller.app, player), label),
                    bucket=bucket_of(caller.app, player),
                    app=caller.app,
                )
            cancelled = await self._cancel_pending(pending)
            details["ids"] = cancelled
        return cancelled

    async def _cancel_pending(self, schedules: Sequence[Schedule]) -> list[str]:
        cancelled: list[str] = []

        async def cancel(schedule: Schedule) -> bool:
            result = await self._timetable.cancel(ScheduleRef.of(schedule))
            if result.done:
                cancelled.append(schedule.id)
            return result.done

        # Concurrently, so that they share packets.
        pending = [s for s in schedules if s.state in _OPEN]
        await run_all(map(cancel, pending))
        if cancelled:
            await self._quotas.free_schedule_slots(pending[0].app, cancelled)
        return [s.id for s in pending if s.id in set(cancelled)]

    async def _change(
        self, caller: Caller, schedule_id: str, due_ms: int | None
    ) -> CancelResult:
        schedule = await self._to_change(caller, schedule_id)
        if due_ms is not None:
            await self._timetable.recipients.renew(schedule)
        fragment, expires_ms = b"", 0
        if due_ms is not None and schedule.state in _OPEN:
            fragment, expires_ms = rescheduled_fragment(schedule, due_ms)
        changed = await self._timetable.cancel(
            ScheduleRef.of(schedule),
            campaign=schedule.campaign,
            due_ms=due_ms,
            fragment=fragment,
            expires_ms=expires_ms,
        )
        result = _result(schedule_id, changed)
        if changed.begun and result.state is ScheduleState.CANCELLED:
            # Also by a repetition, if the first call failed here.
            await self._timetable.recipients.close(schedule)
        if result.done and due_ms is None:
            await self._quotas.free_schedule_slots(caller.app, [schedule_id])
        elif (
            result.done
            and due_ms is not None
            and result.state is not ScheduleState.PAUSED
        ):
            await self._quotas.move_schedule_slot(caller.app, schedule_id, due_ms)
        return result

    def _charged(self, schedules: Sequence[Schedule], players: Sequence[str]) -> Charge:
        """Charge an app for schedules, and take their slots; see `Quotas`."""
        app = schedules[0].app
        return self._quotas.charged(
            app,
            deliveries=sum(s.total for s in schedules),
            size=sum(s.total * len(s.fragment) for s in schedules),
            players=[Player(p) for p in players if not Log(app, p).is_audience],
            slots={s.id: s.due_ms for s in schedules},
        )

    async def _add_all(self, schedules: Sequence[Schedule]) -> list[bool]:
        """Add schedules; return which are new. Raises if not all were added."""
        outcomes = await self._timetable.add_many(schedules)
        failures = [o for o in outcomes if isinstance(o, Exception)]
        for failure in failures:
            if not isinstance(failure, Unavailable):
                raise failure
        if failures and all(isinstance(o, StoreUnavailable) for o in outcomes):
            raise failures[0]
        if failures:
            raise OutcomeUnknown
        return [outcome.added for outcome in outcomes if isinstance(outcome, AddResult)]

    async def _fire_now(self, schedules: Sequence[Schedule]) -> None:
        # If this fails, a scheduler does it a moment later.
        with contextlib.suppress(*STORE_FAILURES):
            await self._timetable.firing.fire(schedules)


def _result(schedule_id: str, changed: ChangeResult) -> CancelResult:
    """Return a result as the caller gets it. Raises NotFound."""
    if changed.state is None:
        raise NotFound("the schedule")
    return CancelResult(schedule_id, changed.state, changed.done)


def _check_request(caller: Caller, players: Sequence[str], spread_ms: int) -> None:
    """Raise Forbidden or Invalid unless the request is valid."""
    assert players
    for player in players:
        # No caller's player has the name of an audience: it requires writing to any.
        caller.require_write(Player(player))
    if not 0 <= spread_ms <= SPREAD_MAX_MS:
        problem = f"must be at most {SPREAD_MAX_MS // 60_000} minutes"
        raise Invalid(FieldError(("body", "spread_s"), problem))
    if len(players) > RECIPIENTS_MAX:
        problem = f"must have at most {RECIPIENTS_MAX} players, has {len(players)}"
        raise Invalid(FieldError(("body", "to", "players"), problem))

"""
Sends to campaigns, at once or at a time.

Decides the scopes that each operation requires, and how many notifications a campaign
may have in its lifetime. Knows the campaigns in the store and the timetable. Knows
nothing of how WalletWerk encodes them.

A send goes to the players whose card is active when it is sent, not when it was
created. It takes one of the campaign's slots when it is created, in one atomic step,
and releases the slot only if it is cancelled before it begins.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ...core.access.rights import Caller
from ...core.schedule import Schedule, ScheduleState
from ...errors import FieldError, Invalid, NotFound, TooLate, Unavailable, UsedUp
from ...model import Notification
from ...service.node.quotas import Quotas
from ...service.privacy.audit import Audit, recording
from ...service.publishing.drafts import encode
from ...service.publishing.idempotency import IdempotentRequest, as_first_answered
from ...service.scheduling.campaigns import SENDS_MAX, require_campaign
from ...service.scheduling.planning import start_ms, with_notification
from ...service.scheduling.schedules import CancelResult
from ...service.scheduling.sender import Sender
from ...store.client.connection import RedisConnection
from ...store.keys import BUCKETS, bucket_of
from ...store.scheduling.campaigns import Campaigns
from ...store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from ...store.scheduling.timetable import Timetable

__all__ = ["CampaignSends"]

AT_ONCE: Final = "at once"
"""The label of sends that were not scheduled."""

SEND_NOW_S: Final = 2.0
"""How long a request waits for a send at once; a scheduler does the rest."""


class CampaignSends:
    """
    The operations on sends to campaigns, with the rights of a caller.

    Args:
        redis: The connection to the store, for idempotency keys.
        campaigns: The campaigns in the store.
        timetable: The schedules in the store.
        quotas: The quotas of apps; without, nothing is limited.
        audit: Records cancellations.

    """

    def __init__(
        self,
        redis: RedisConnection,
        campaigns: Campaigns,
        timetable: Timetable,
        quotas: Quotas | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._redis = redis
        self._quotas = quotas or Quotas.unlimited(redis)
        self._campaigns = campaigns
        self._timetable = timetable
        self._sender = Sender(timetable.recipients)

    async def check(self, caller: Caller, campaign_id: str) -> None:
        """
        Raise unless the caller may send to the campaign.

        Raises:
            Forbidden: The caller's key lacks the scope.
            NotFound: The caller's app has no such campaign.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_scope("campaigns:write")
        await require_campaign(self._campaigns, caller, campaign_id)

    async def send(
        self,
        caller: Caller,
        campaign_id: str,
        notification: Notification,
        *,
        due_ms: int | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Schedule, bool]:
        """
        Send to a campaign at a time, or at once.

        Returns the schedule in its present state, and whether an earlier request with
        the same idempotency key created it.

        Raises:
            Forbidden, NotFound: As `check`.
            Invalid: The time is not in the future, or more than 30 days ahead.
            UsedUp: The campaign has no notification slot left.
            OverQuota: A quota of the app is used up; the key is not claimed.
            Conflict: The idempotency key was used for another request.
            StoreUnavailable: Nothing was created.
            OutcomeUnknown: It may have been created; retry with the idempotency key.

        """
        await self.check(caller, campaign_id)
        (fragment,) = encode([notification])
        request = IdempotentRequest.of(
            caller.app, idempotency_key, (fragment, campaign_id, str(due_ms))
        )
        bucket = bucket_of(caller.app, campaign_id)
        schedule_id = new_schedule_id(bucket, seed=request.seed)
        if earlier := await self._earlier(request, schedule_id):
            return earlier, True
        now_ms = await self._timetable.now_ms()
        if due_ms is not None and due_ms <= now_ms:
            raise Invalid(FieldError(("body", "send_at"), "must be in the future"))
        starts_ms = start_ms(due_ms or 0, now_ms)
        schedule = Schedule(
            caller.app,
            schedule_id,
            ScheduleState.PENDING,
            starts_ms,
            0,
            fragment,
            campaign=campaign_id,
            # When it is sent, those without active cards are skipped.
            buckets=tuple(range(BUCKETS)),
            label="" if due_ms is not None else AT_ONCE,
        )
        schedule = with_notification(schedule, notification)
        # Charged as one delivery: the number of active cards is known when it is sent.
        async with self._quotas.charged(
            caller.app,
            deliveries=1,
            size=len(fragment),
            slots={schedule_id: starts_ms},
        ) as charge:
            await request.claim(self._redis)
            entered = await self._timetable.add(schedule, slots_max=SENDS_MAX)
            if entered.full:
                raise UsedUp("the notifications of a campaign", SENDS_MAX)
            if not entered.added:
                charge.refund()
        if entered.added and due_ms is None:
            await self._send_now(schedule)
        earlier = await self._timetable.get(caller.app, schedule_id)
        return earlier or schedule, not entered.added

    async def _earlier(
        self, request: IdempotentRequest, schedule_id: str
    ) -> Schedule | None:
        """Return the schedule of an earlier request with the same key, if any."""
        if not request.seed:
            return None
        earlier = await self._timetable.get(request.app, schedule_id)
        # The first response to a send at once had its state at that time, too.
        if earlier is None or earlier.label == AT_ONCE:
            return earlier
        return as_first_answered(earlier)

    async def list_scheduled(
        self, caller: Caller, campaign_id: str, *, state: ScheduleState | None
    ) -> list[Schedule]:
        """
        Return the scheduled sends of a campaign, newest first; with `state`, only
        those.

        Raises:
            Forbidden: The caller's key lacks the scope.
            NotFound: The caller's app has no such campaign.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_scope("campaigns:read")
        await require_campaign(self._campaigns, caller, campaign_id)
        sends = await self._timetable.list_index(
            self._redis.keys.sends(caller.app, campaign_id),
            bucket=bucket_of(caller.app, campaign_id),
            app=caller.app,
        )
        return [
            schedule
            for schedule in reversed(sends)
            if schedule.label != AT_ONCE and state in (None, schedule.resumed_state)
        ]

    async def get(self, caller: Caller, campaign_id: str, send_id: str) -> Schedule:
        """Return a send. Raises as `list_scheduled`, and NotFound for the send."""
        caller.require_scope("campaigns:read")
        await require_campaign(self._campaigns, caller, campaign_id)
        return await self._require_send(caller, campaign_id, send_id)

    async def cancel(
        self, caller: Caller, campaign_id: str, send_id: str
    ) -> tuple[Schedule, CancelResult]:
        """
        Cancel a send that has not begun, and release its slot.

        `CancelResult.done` is whether this call has cancelled it. Raises as `get`, and
        OutcomeUnknown.
        """
        async with recording(
            self._audit, caller, "schedule.cancel", target=f"schedule:{send_id}"
        ) as details:
            details["campaign"] = campaign_id
            await self.check(caller, campaign_id)
            schedule = await self._require_send(caller, campaign_id, send_id)
            # Paused on another surface after it had begun: here it is being sent.
            if schedule.resumed_state is ScheduleState.SENDING:
                raise TooLate(ScheduleState.SENDING.value)
            state, done, begun = await self._timetable.cancel(
                ScheduleRef.of(schedule), campaign=campaign_id
            )
            if state is None:
                raise NotFound("the notification")
            if done and begun:
                # It began and was paused since it was read.
                await self._timetable.recipients.close(schedule)
            if done:
                await self._quotas.free_schedule_slots(caller.app, [send_id])
            details["state"] = state.value
            schedule = await self._require_send(caller, campaign_id, send_id)
        return schedule, CancelResult(send_id, state, done)

    async def _require_send(
        self, caller: Caller, campaign_id: str, send_id: str
    ) -> Schedule:
        schedule = await self._timetable.get(caller.app, send_id)
        if schedule is None or schedule.campaign != campaign_id:
            raise NotFound("the notification")
        return schedule

    async def _send_now(self, schedule: Schedule) -> None:
        """Send at once, for up to `SEND_NOW_S`, what a scheduler would send soon."""
        until_s = asyncio.get_running_loop().time() + SEND_NOW_S
        more = True
        try:
            await self._timetable.firing.begin_sending([ScheduleRef.of(schedule)])
            # In time slices, between which it may be paused.
            while more and asyncio.get_running_loop().time() < until_s:
                begun = await self._timetable.get(schedule.app, schedule.id)
                if begun is None or begun.state is not ScheduleState.SENDING:
                    return
                more = await self._sender.send(begun, await self._timetable.now_ms())
        except Unavailable:
            # It is scheduled; a scheduler sends it.
            return

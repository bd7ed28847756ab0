"""
The WalletWerk notifications API as bytes: bodies, parameters, responses.

Decides the types and limits of fields; `refusals` has the errors. Pure: no I/O, no
services. The specification is the page "Notifications API" of WalletWerk's developer
documentation (read 2026-11). It shows no response; the form follows its sibling pages:
everything is in ``{success, data}`` or ``{success: false, error: {code, message}}``,
fields are camelCase, lists have ``limit``, ``offset`` and ``pagination``. These rules
apply:

A notification is ``pending``, ``sending``, ``sent`` or ``cancelled``. (``failed`` is a
status, too, but only as a filter: a failed attempt is repeated, so nothing has it.) A
notification occupies one of the three slots of its campaign from its creation, and
releases it only if it is cancelled while pending. A notification that is sent at once
gets its response when it is sent, or after two seconds with its progress.
``recipientCount`` is the number of players that have received it, each counted once
however many active cards the player holds; null while pending.

Only a pending notification can be cancelled, as the page says: every other state is a
409, ``cancelled`` too, on whichever surface it was cancelled. A client whose first
request had no response reads from the message of the second that it was cancelled.

``scheduledFor`` is UTC unless it has an offset, must be in the future by the store's
clock, and is null if the notification was sent at once. Such a notification is not in
the list of scheduled ones, but can be retrieved by its id. The list is newest first.
``scheduled`` is not an id.

A send that was paused on the native surface is shown as ``pending``, or as ``sending``
if it had begun.

Unknown members of a body are ignored. Creating is a 201.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from ...contract.operation import TIME, integer
from ...contract.query_fields import QueryFields
from ...core.schedule import Schedule, ScheduleState, parse_time
from ...errors import FieldError, Invalid
from ...model import Notification, decode_fragment, iso_time

__all__ = [
    "BODY_BYTES_MAX",
    "LIMIT",
    "OFFSET",
    "CampaignScheduleBody",
    "CampaignSendBody",
    "CampaignSendsQuery",
    "encode_list",
    "encode_notification",
]

BODY_BYTES_MAX: Final = 256 * 1024
HEADER_CHARS_MAX: Final = 100
BODY_CHARS_MAX: Final = 500
LIMIT: Final = integer(
    "limit", "Maximum number of notifications.", default=20, least=1, most=100
)
OFFSET: Final = integer(
    "offset", "Number of notifications to skip.", default=0, least=0, most=1_000_000
)

SOURCE: Final = "walletwerk"

_STATES: Final = {
    state.value: state for state in ScheduleState if state is not ScheduleState.PAUSED
}

_encode: Final = msgspec.json.Encoder().encode


class CampaignSendBody(msgspec.Struct, frozen=True):
    """A notification to send at once. Unknown members are ignored, see above."""

    header: Annotated[str, Meta(min_length=1, max_length=HEADER_CHARS_MAX)]
    body: Annotated[str, Meta(min_length=1, max_length=BODY_CHARS_MAX)]

    def notification(self) -> Notification:
        return Notification(title=self.header, body=self.body, source=SOURCE)


class CampaignScheduleBody(CampaignSendBody, frozen=True, kw_only=True):
    """A notification to send later."""

    scheduled_for: Annotated[str, TIME] = msgspec.field(name="scheduledFor")

    def due_ms(self) -> int:
        """Return the time to send it. Raises Invalid."""
        at_ms = parse_time(self.scheduled_for)
        if at_ms is None:
            problem = "must be an ISO 8601 date and time, as in 2026-11-20T18:00:00Z"
            raise Invalid(FieldError(("body", "scheduledFor"), problem))
        return at_ms


class CampaignSendsQuery(NamedTuple):
    """The parsed parameters. `state` of None is any; `is_empty` matches nothing."""

    limit: int
    offset: int
    state: ScheduleState | None
    is_empty: bool

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> CampaignSendsQuery:
        """Parse a query. Raises Invalid with every problem."""
        fields = QueryFields(query)
        limit, offset = fields.int(LIMIT), fields.int(OFFSET)
        status = query.get("status") or None
        state = None
        if status not in (None, "failed"):
            state = _STATES.get(str(status))
            if state is None:
                states = "pending, sending, sent, cancelled or failed"
                fields.note("status", f"must be {states}")
        fields.done()
        return cls(limit, offset, state, status == "failed")


def encode_notification(schedule: Schedule, *, scheduled: bool) -> bytes:
    """Return a response with one notification."""
    return _success(_notification(schedule, scheduled=scheduled))


def encode_list(schedules: Sequence[Schedule], query: CampaignSendsQuery) -> bytes:
    """Return a response with the page of `schedules` that the query asks for."""
    total = len(schedules)
    page = schedules[query.offset : query.offset + query.limit]
    return _success(
        {
            "notifications": [
                _notification(schedule, scheduled=True) for schedule in page
            ],
            "pagination": {
                "total": total,
                "limit": query.limit,
                "offset": query.offset,
                "hasMore": query.offset + len(page) < total,
            },
        }
    )


def _notification(schedule: Schedule, *, scheduled: bool) -> dict[str, Any]:
    notification = decode_fragment(schedule.fragment)
    state = schedule.resumed_state
    reached = state in (ScheduleState.SENDING, ScheduleState.SENT)
    changed_ms = max(schedule.created_ms, schedule.begun_ms, schedule.settled_ms)
    is_sent = state is ScheduleState.SENT
    return {
        "id": schedule.id,
        "campaignId": schedule.campaign,
        "header": notification.title or "",
        "body": notification.body or "",
        "status": state.value,
        "scheduledFor": iso_time(schedule.due_ms) if scheduled else None,
        "sentAt": iso_time(schedule.settled_ms) if is_sent else None,
        "recipientCount": schedule.delivered if reached else None,
        "createdAt": iso_time(schedule.created_ms),
        "updatedAt": iso_time(changed_ms),
    }


def _success(data: dict[str, Any]) -> bytes:
    return _encode({"success": True, "data": data})

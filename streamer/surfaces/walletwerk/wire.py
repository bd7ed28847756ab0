"""
The WalletWerk notifications API as bytes: bodies, parameters, answers.

Decides shapes and limits of fields. Pure: no I/O, no services.
The contract is the page "Notifications API" of WalletWerk's developer documentation
(read 2026-11). It shows no answer at all; shapes follow its sibling pages: everything
is in ``{success, data}`` or ``{success: false, error: {code, message}}``, fields are
camelCase, lists have ``limit``, ``offset`` and ``pagination``. This is what holds:

A notification is ``pending``, ``sending``, ``sent`` or ``cancelled``. (``failed`` is a
status too, as a filter; nothing here ever has it, since what fails is tried again.) It
holds one of its campaign's three slots from the moment it is created, and gives it back
when it is cancelled while pending, never later. One that is sent at once is answered
when it is sent, or after two seconds with how far it has got. ``recipientCount`` is
how many players have it, each once, however many active cards they hold; null while
pending.

``scheduledFor`` is UTC unless it says otherwise, has to be in the future by the store's
clock, and is null for what was sent at once. That is no part of the list of scheduled
ones, but can be read by its id. The list is newest first. ``scheduled`` is no id.

Members of a body that the page does not have are ignored. What was created is a 201;
`refusals` has the errors.
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
LIMIT: Final = integer("limit", "How many.", default=20, least=1, most=100)
OFFSET: Final = integer(
    "offset", "How many to leave out.", default=0, least=0, most=1_000_000
)

SOURCE: Final = "walletwerk"

_encode: Final = msgspec.json.Encoder().encode


class CampaignSendBody(msgspec.Struct, frozen=True):
    """A notification to be sent at once. Unknown members are ignored, see above."""

    header: Annotated[str, Meta(min_length=1, max_length=HEADER_CHARS_MAX)]
    body: Annotated[str, Meta(min_length=1, max_length=BODY_CHARS_MAX)]

    def notification(self) -> Notification:
        return Notification(title=self.header, body=self.body, source=SOURCE)


class CampaignScheduleBody(CampaignSendBody, frozen=True, kw_only=True):
    """A notification to be sent later."""

    scheduled_for: Annotated[str, TIME] = msgspec.field(name="scheduledFor")

    def due_ms(self) -> int:
        """Return when it is to be sent. Raises Invalid if that is no time."""
        at_ms = parse_time(self.scheduled_for)
        if at_ms is None:
            problem = "must be an ISO 8601 date and time, as in 2026-11-20T18:00:00Z"
            raise Invalid(FieldError(("body", "scheduledFor"), problem))
        return at_ms


class CampaignSendsQuery(NamedTuple):
    """The parameters of the list. `state` of None is any; `is_empty` fits nothing."""

    limit: int
    offset: int
    state: ScheduleState | None
    is_empty: bool

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> CampaignSendsQuery:
        """Raise Invalid with all that is wrong in `query`."""
        fields = QueryFields(query)
        limit, offset = fields.int(LIMIT), fields.int(OFFSET)
        status = query.get("status") or None
        state = None
        if status not in (None, "failed"):
            try:
                state = ScheduleState(status)
            except ValueError:
                known = "pending, sending, sent, cancelled or failed"
                fields.note("status", f"must be {known}")
        fields.done()
        return cls(limit, offset, state, status == "failed")


def encode_notification(schedule: Schedule, *, scheduled: bool) -> bytes:
    """Return the answer that has one notification."""
    return _success(_shown(schedule, scheduled=scheduled))


def encode_list(found: Sequence[Schedule], query: CampaignSendsQuery) -> bytes:
    """Return the page of `found` that is asked for."""
    total = len(found)
    shown = found[query.offset : query.offset + query.limit]
    return _success(
        {
            "notifications": [_shown(schedule, scheduled=True) for schedule in shown],
            "pagination": {
                "total": total,
                "limit": query.limit,
                "offset": query.offset,
                "hasMore": query.offset + len(shown) < total,
            },
        }
    )


def _shown(schedule: Schedule, *, scheduled: bool) -> dict[str, Any]:
    notification = decode_fragment(schedule.fragment)
    reached = schedule.state in (ScheduleState.SENDING, ScheduleState.SENT)
    changed_ms = max(schedule.created_ms, schedule.begun_ms, schedule.settled_ms)
    is_sent = schedule.state is ScheduleState.SENT
    return {
        "id": schedule.id,
        "campaignId": schedule.campaign,
        "header": notification.title or "",
        "body": notification.body or "",
        "status": schedule.state.value,
        "scheduledFor": iso_time(schedule.due_ms) if scheduled else None,
        "sentAt": iso_time(schedule.settled_ms) if is_sent else None,
        "recipientCount": schedule.delivered if reached else None,
        "createdAt": iso_time(schedule.created_ms),
        "updatedAt": iso_time(changed_ms),
    }


def _success(data: dict[str, Any]) -> bytes:
    return _encode({"success": True, "data": data})

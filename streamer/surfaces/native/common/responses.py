"""
The types of the native surface's responses.

The wires build most responses from bytes that the store already holds. These types
document them in the contract, and the tests check every response against them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....contract.operation import TIME, matching
from ....core.schedule import ScheduleState
from ....model import Notification
from .parameters import Count, Id

__all__ = [
    "AudienceReceiptResponse",
    "MutesResponse",
    "NotificationResponse",
    "PageResponse",
    "Problem",
    "ProblemItem",
    "PublishResponse",
    "PublishResult",
    "ReceiptResponse",
    "ScheduleResponse",
    "ScheduledResponse",
    "SchedulesResponse",
    "TicketResponse",
    "TokenResponse",
    "TopicsResponse",
    "UnreadCountsResponse",
    "UnreadResponse",
]

Time = Annotated[str, TIME]


class NotificationResponse(Notification, frozen=True, kw_only=True):
    """A notification, with fields that the server adds. Absent fields are not null."""

    id: Id
    created_at: Time
    read_at: Time | UnsetType = UNSET


class AudienceName(msgspec.Struct, frozen=True):
    """An audience as in ``to``. One of the fields is present."""

    topic: str | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET


class PageResponse(msgspec.Struct, frozen=True):
    """
    A page. Pass `next` as ``before``, or as ``after`` if the oldest come first.

    `gap` is present if notifications after ``after`` are no longer available. Of the
    audiences in `unreadable` nothing is shown or counted, because what the store has
    of them is damaged.
    """

    notifications: list[NotificationResponse]
    next: str | None
    unread: Count
    cursor: str
    gap: Literal["epoch", "ahead", "diverged", "trimmed"] | UnsetType = UNSET
    unreadable: list[AudienceName] | UnsetType = UNSET


class PublishResult(msgspec.Struct, frozen=True):
    """The result for one recipient: an id, or `muted` if it was not stored."""

    to: str | AudienceName
    id: Id | UnsetType = UNSET
    muted: bool | UnsetType = UNSET


class PublishResponse(msgspec.Struct, frozen=True):
    """A result per recipient, in the order of the request."""

    results: list[PublishResult]


class ReceiptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a notification for one player."""

    id: Id
    state: Literal["stored", "acknowledged", "read", "expired", "withdrawn", "replaced"]
    stored_at: Time
    acknowledged: bool
    read_at: Time | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET


class AudienceReceiptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a notification to an audience, with numbers of players."""

    id: Id
    state: Literal["stored", "expired", "withdrawn", "replaced"]
    stored_at: Time
    acknowledged: Count
    read: Count
    expires_at: Time | UnsetType = UNSET


class PlayerUnread(msgspec.Struct, frozen=True):
    player: str
    unread: Count


class UnreadCountsResponse(msgspec.Struct, frozen=True):
    """A count per player, in the order of the request."""

    unread: list[PlayerUnread]


class TopicItem(msgspec.Struct, frozen=True):
    topic: str
    muted: bool


class TopicsResponse(msgspec.Struct, frozen=True):
    """The topics that a player is subscribed to, sorted by name."""

    topics: list[TopicItem]


class MutesResponse(msgspec.Struct, frozen=True):
    """What a player has muted, sorted by name."""

    types: list[str]
    topics: list[str]


class ScheduleResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    A schedule. `total` is 0 until the recipients of a campaign are known.

    `paused_at` is there while it is paused.
    """

    id: Id
    state: ScheduleState
    send_at: Time
    created_at: Time
    total: Count
    delivered: Count
    late: bool
    notification: Notification
    paused_at: Time | UnsetType = UNSET
    settled_at: Time | UnsetType = UNSET
    spread_s: Count | UnsetType = UNSET
    to: str | AudienceName | UnsetType = UNSET
    campaign: str | UnsetType = UNSET


class ScheduledResponse(msgspec.Struct, frozen=True):
    schedule: ScheduleResponse


class SchedulesResponse(msgspec.Struct, frozen=True):
    """A page of schedules, oldest first. Pass `next` as `after` for the next page."""

    schedules: list[ScheduleResponse]
    next: str | None


class UnreadResponse(msgspec.Struct, frozen=True):
    unread: Count


class TokenResponse(msgspec.Struct, frozen=True):
    token: str
    expires_at: Time


class TicketResponse(msgspec.Struct, frozen=True):
    ticket: str
    expires_in_s: Count


class ProblemItem(msgspec.Struct, frozen=True):
    """One problem and where it is: one of the four other fields."""

    problem: str
    pointer: str | UnsetType = UNSET
    query: str | UnsetType = UNSET
    header: str | UnsetType = UNSET
    path: str | UnsetType = UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457). The meaning of a `type` never changes."""

    type: Annotated[str, matching("^about:")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[ProblemItem] | UnsetType = UNSET
    defect: str | UnsetType = UNSET
    limit: str | UnsetType = UNSET
    quota: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET

"""
The shapes of the native surface's answers.

The wires build most of them from bytes that are in the store already; they are written
down here for the contract, and the surface's tests hold every answer against them.
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
    "AudienceReceiptShown",
    "MutesShown",
    "NotificationShown",
    "PageShown",
    "PlayersUnreadShown",
    "Problem",
    "PublishedShown",
    "ReceiptShown",
    "ResultShown",
    "ScheduleShown",
    "ScheduledShown",
    "SchedulesShown",
    "TicketShown",
    "TokenShown",
    "TopicsShown",
    "UnreadShown",
    "Wrong",
]

Time = Annotated[str, TIME]


class NotificationShown(Notification, frozen=True, kw_only=True):
    """A notification, with what the server has added; absent is not null."""

    id: Id
    created_at: Time
    read_at: Time | UnsetType = UNSET


class PageShown(msgspec.Struct, frozen=True):
    """
    A page. `next` gives the next one, as ``before``, or as ``after`` oldest first.

    `gap` is there where something behind ``after`` is not all there any more.
    """

    notifications: list[NotificationShown]
    next: str | None
    unread: Count
    cursor: str
    gap: Literal["epoch", "ahead", "diverged", "trimmed"] | UnsetType = UNSET


class AudienceShown(msgspec.Struct, frozen=True):
    """An audience, as it is named in ``to``: one of the two."""

    topic: str | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET


class ResultShown(msgspec.Struct, frozen=True):
    """What became of a message for one recipient: an id, unless it is muted there."""

    to: str | AudienceShown
    id: Id | UnsetType = UNSET
    muted: bool | UnsetType = UNSET


class PublishedShown(msgspec.Struct, frozen=True):
    """An id per recipient, in the order of the request."""

    results: list[ResultShown]


class ReceiptShown(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a notification for one player."""

    id: Id
    state: Literal["stored", "acknowledged", "read", "expired", "withdrawn", "replaced"]
    stored_at: Time
    acknowledged: bool
    read_at: Time | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET


class AudienceReceiptShown(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a notification for an audience, and for how many players."""

    id: Id
    state: Literal["stored", "expired", "withdrawn", "replaced"]
    stored_at: Time
    acknowledged: Count
    read: Count
    expires_at: Time | UnsetType = UNSET


class PlayerUnreadShown(msgspec.Struct, frozen=True):
    player: str
    unread: Count


class PlayersUnreadShown(msgspec.Struct, frozen=True):
    """In the order of the request."""

    unread: list[PlayerUnreadShown]


class TopicShown(msgspec.Struct, frozen=True):
    topic: str
    muted: bool


class TopicsShown(msgspec.Struct, frozen=True):
    """The topics that a player has joined, by name."""

    topics: list[TopicShown]


class MutesShown(msgspec.Struct, frozen=True):
    """What a player does not want, by name."""

    types: list[str]
    topics: list[str]


class ScheduleShown(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule. `total` is 0 while a campaign's audience is not known."""

    id: Id
    state: ScheduleState
    send_at: Time
    created_at: Time
    total: Count
    delivered: Count
    late: bool
    notification: Notification
    settled_at: Time | UnsetType = UNSET
    spread_s: Count | UnsetType = UNSET
    to: str | AudienceShown | UnsetType = UNSET
    campaign: str | UnsetType = UNSET


class ScheduledShown(msgspec.Struct, frozen=True):
    schedule: ScheduleShown


class SchedulesShown(msgspec.Struct, frozen=True):
    """A page of schedules, oldest first. `next` as `after` gives the next one."""

    schedules: list[ScheduleShown]
    next: str | None


class UnreadShown(msgspec.Struct, frozen=True):
    unread: Count


class TokenShown(msgspec.Struct, frozen=True):
    token: str
    expires_at: Time


class TicketShown(msgspec.Struct, frozen=True):
    ticket: str
    expires_in_s: Count


class Wrong(msgspec.Struct, frozen=True):
    """One thing that is wrong: where, in one of four ways, and what."""

    problem: str
    pointer: str | UnsetType = UNSET
    query: str | UnsetType = UNSET
    header: str | UnsetType = UNSET
    path: str | UnsetType = UNSET


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457). `type` never changes its meaning."""

    type: Annotated[str, matching("^about:")]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: list[Wrong] | UnsetType = UNSET
    defect: str | UnsetType = UNSET
    limit: str | UnsetType = UNSET
    quota: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET

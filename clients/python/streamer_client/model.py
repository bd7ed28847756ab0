"""
The types of requests and responses: messages, notifications, pages, receipts.

Their fields have the names of the protocol. Unknown fields of a response are ignored,
so a server may be newer than its clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

__all__ = [
    "EVERYONE",
    "Audience",
    "AudienceReceipt",
    "FieldProblem",
    "Membership",
    "Message",
    "Mutes",
    "Notification",
    "Page",
    "Property",
    "Receipt",
    "Resource",
    "Schedule",
    "SchedulePage",
    "Sent",
    "Ticket",
    "To",
    "Token",
    "check_mark",
]


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a notification refers to: a URL, and the ETag that it had at that time."""

    url: str
    etag: str | None = None


class Property(msgspec.Struct, frozen=True):
    """One item of a notification's ordered list of properties."""

    key: str
    value: str


class Audience(msgspec.Struct, frozen=True, omit_defaults=True):
    """The subscribers of `topic`, or everyone in the app. Exactly one of the two."""

    topic: str | None = None
    everyone: bool = False

    def __post_init__(self) -> None:
        if (self.topic is None) is not self.everyone:
            raise ValueError("give either topic or everyone")


EVERYONE: Final = Audience(everyone=True)

To: TypeAlias = str | Sequence[str] | Audience
"""The recipients of a message: a player, several players, or an audience."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    A notification to be published, with its recipients.

    At least one of `type`, `title`, `body` and `data` is required. The notification
    expires `ttl_s` seconds (1 to 31,536,000) after it is sent, or at `expires_at`;
    without either, when it exceeds the server's retention. It replaces the last one
    with the same `collapse_key` (up to 128 characters). With the `device` ``latest``
    its live delivery goes only to the device that the player used last. With `persist`
    false it goes only to the streams that are open, and is not stored. Times need a
    time zone.
    """

    to: To
    type: str | None = None
    title: str | None = None
    body: str | None = None
    data: Any = msgspec.UNSET  # any JSON value; None is JSON's null
    properties: Mapping[str, str] | Sequence[Property] = ()
    priority: str = "medium"
    resource: Resource | None = None
    ttl_s: int | None = None
    expires_at: datetime | None = None
    collapse_key: str | None = None
    device: str = "all"
    persist: bool = True


class Notification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    A notification as a player receives it.

    `data` is any JSON value: None is JSON's null, and `msgspec.UNSET` means that there
    is none. `priority` is ``low``, ``medium``, ``high`` or ``emergency``; it is a plain
    string, so that a client can read a priority that it does not know. `topic` or
    `everyone` names the audience, if it was sent to one. `due_at` is the time at which
    a late notification should have been sent.

    Only pages have `read_at`. Only streams have `cursor`, the point after this
    notification; it is None if the server sends the cursor later (`CursorMoved`), or
    if the notification is not stored.
    """

    id: str
    created_at: datetime
    type: str | None = None
    title: str | None = None
    body: str | None = None
    data: Any = msgspec.UNSET  # any JSON value, unchanged
    properties: tuple[Property, ...] = ()
    priority: str = "medium"
    resource: Resource | None = None
    source: str | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    collapse_key: str | None = None
    topic: str | None = None
    everyone: bool = False
    read_at: datetime | None = None
    cursor: str | None = None


class Page(msgspec.Struct, frozen=True):
    """
    Up to 100 notifications of a player, newest first unless requested otherwise.

    Pass `next` as `before` (as `after`, if the oldest come first) to get the next page;
    it is None on the last page. `unread` counts the whole inbox. `cursor` is the end of
    the inbox at that time: a stream opened with it continues this page without loss.
    `gap` is set only if the oldest come first: it is the reason why notifications after
    `after` are missing.
    """

    notifications: tuple[Notification, ...]
    next: str | None = None
    unread: int = 0
    cursor: str | None = None
    gap: str | None = None


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    The result of a publish for one recipient: the id of the notification there.

    If the player has `muted` the type, nothing was stored, and `id` is None.
    """

    to: str | Audience
    id: str | None = None
    muted: bool = False


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """
    A publish at a later time.

    `state` is ``pending``, ``sending``, ``sent`` or ``cancelled``. `total` is the
    number of recipients, `delivered` the number of those that have the notification.
    """

    id: str
    state: str
    send_at: datetime
    created_at: datetime
    total: int
    delivered: int
    late: bool = False
    settled_at: datetime | None = None
    spread_s: int = 0
    to: str | Audience | None = None
    campaign: str | None = None


class SchedulePage(msgspec.Struct, frozen=True):
    """Schedules, oldest first. Pass `next` as `after` to get the next page."""

    schedules: tuple[Schedule, ...]
    next: str | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """
    The state of a notification for one player.

    `state` is the last one that is true of ``stored``, ``acknowledged``, ``read``,
    ``expired``, ``withdrawn`` and ``replaced``.
    """

    id: str
    state: str
    stored_at: datetime
    acknowledged: bool = False
    read_at: datetime | None = None
    expires_at: datetime | None = None


class AudienceReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """
    The state of a notification to an audience.

    `acknowledged` and `read` count players. `state` says whether it has ended.
    """

    id: str
    state: str
    stored_at: datetime
    acknowledged: int = 0
    read: int = 0
    expires_at: datetime | None = None


class Membership(msgspec.Struct, frozen=True):
    """A topic that a player is subscribed to, and whether the player has muted it."""

    topic: str
    muted: bool = False


class Mutes(msgspec.Struct, frozen=True):
    """The types of notifications and the topics that a player has muted."""

    types: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


class Token(msgspec.Struct, frozen=True):
    """A player's token, and when it expires, if that is known."""

    token: str
    expires_at: datetime | None = None


class Ticket(msgspec.Struct, frozen=True):
    """Opens one stream of the player from a URL, within `expires_in_s`."""

    ticket: str
    expires_in_s: int


class FieldProblem(msgspec.Struct, frozen=True):
    """One problem of a request: where it is, and what is wrong."""

    where: str
    problem: str


def check_mark(ids: Sequence[str] | None, up_to: str | None, all: bool) -> None:
    """
    Check that exactly one of the arguments selects what is marked.

    Raises:
        ValueError: None or several of them do.
    """
    if (ids is not None) + (up_to is not None) + all != 1:
        raise ValueError("give exactly one of ids, up_to and all")

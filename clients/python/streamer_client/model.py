"""
What a client handles: notifications, messages, pages, results, receipts, schedules.

Knows the names of the fields on the wire. Fields this version has never heard of are
ignored, so that a server may be newer than its clients.
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
    """What a notification is about: a path and the ETag it had at that time."""

    url: str
    etag: str | None = None


class Property(msgspec.Struct, frozen=True):
    """One key and value of a notification's ordered list of properties."""

    key: str
    value: str


class Audience(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whoever has joined `topic`, or everyone in the app: one of the two."""

    topic: str | None = None
    everyone: bool = False

    def __post_init__(self) -> None:
        if (self.topic is None) is not self.everyone:
            raise ValueError("an audience is a topic's or everyone")


EVERYONE: Final = Audience(everyone=True)

To: TypeAlias = str | Sequence[str] | Audience
"""Whom a message is for: a player, players, or an audience."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    A notification to be published, and whom it is for.

    At least one of `type`, `title`, `body` and `data` has to be given. It ends after
    `ttl_s` seconds or at `expires_at`, by itself where neither is given. It takes the
    place of the last one with its `collapse_key`. On `device` ``latest`` it is live
    only on the one that a player used last. Without `persist` it is for who listens
    now, and kept nowhere. Times have a time zone.
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

    `data` is any JSON value; null is a value, and `msgspec.UNSET` is its absence.
    `priority` is ``low``, ``medium``, ``high`` or ``emergency``, and a plain string
    lest a further one made a client deaf. `topic` or `everyone` says which audience it
    was sent to, if to one. `due_at` is when it should have come, if much earlier.

    `read_at` is known on pages only, and `cursor`, the place behind it, on streams
    only: None there where the place is told later (`CursorMoved`) or there is none.
    """

    id: str
    created_at: datetime
    type: str | None = None
    title: str | None = None
    body: str | None = None
    data: Any = msgspec.UNSET  # any JSON value, as the sender gave it
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
    Some notifications of a player, newest first unless asked for otherwise.

    `next` leads to the further ones when given as `before` (as `after`, where the
    oldest come first), and is None on the last page. `cursor` is where the inbox ended
    at that time: a stream opened from it continues this page without loss. `gap`, only
    where the oldest come first, says why what was behind `after` is not all there.
    """

    notifications: tuple[Notification, ...]
    next: str | None = None
    unread: int = 0
    cursor: str | None = None
    gap: str | None = None


class Sent(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A published notification: whom it went to and the id it has there.

    A player who has `muted` its type got none, and there is no id.
    """

    to: str | Audience
    id: str | None = None
    muted: bool = False


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A publish that is to happen, happens or has happened; `total` recipients."""

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
    """Some schedules, oldest first; `next` given as `after` leads to further ones."""

    schedules: tuple[Schedule, ...]
    next: str | None = None


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a notification for one player.

    `state` is the last that is true of ``stored``, ``acknowledged``, ``read``,
    ``expired``, ``withdrawn`` and ``replaced``.
    """

    id: str
    state: str
    stored_at: datetime
    acknowledged: bool = False
    read_at: datetime | None = None
    expires_at: datetime | None = None


class AudienceReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an audience's notification: how many had it, and read it."""

    id: str
    state: str
    stored_at: datetime
    acknowledged: int = 0
    read: int = 0
    expires_at: datetime | None = None


class Membership(msgspec.Struct, frozen=True):
    """A topic that a player has joined, and may have muted."""

    topic: str
    muted: bool = False


class Mutes(msgspec.Struct, frozen=True):
    """What a player does not want: types of notifications, and topics joined."""

    types: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


class Token(msgspec.Struct, frozen=True):
    """A player's token, and when it ends, if that is known."""

    token: str
    expires_at: datetime | None = None


class Ticket(msgspec.Struct, frozen=True):
    """What opens one stream of the player's from a URL, within `expires_in_s`."""

    ticket: str
    expires_in_s: int


class FieldProblem(msgspec.Struct, frozen=True):
    """One thing wrong with a request: where, and what."""

    where: str
    problem: str


def check_mark(ids: Sequence[str] | None, up_to: str | None, all: bool) -> None:
    """
    Check that a mark says what is meant in one way.

    Raises:
        ValueError: None or several of them are given.
    """
    if (ids is not None) + (up_to is not None) + all != 1:
        raise ValueError("give exactly one of ids, up_to and all")

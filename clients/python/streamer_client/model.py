"""
What a client handles: notifications, gaps, pages and results.

Knows the names of the fields on the wire. Fields this version has never heard of are
ignored, so that a server may be newer than its clients.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "FieldProblem",
    "Gap",
    "Notification",
    "Page",
    "Property",
    "Resource",
    "Sent",
]


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a notification is about: a path and the ETag it had at that time."""

    url: str
    etag: str | None = None


class Property(msgspec.Struct, frozen=True):
    """One key and value of a notification's ordered list of properties."""

    key: str
    value: str


class Notification(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """
    A notification as a player receives it.

    `data` is any JSON value; null is a value, and `msgspec.UNSET` is its absence.
    `read_at` is known on pages only. `priority` is ``low``, ``medium``, ``high`` or
    ``emergency``, and a plain string lest a further one made a client deaf.
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
    read_at: datetime | None = None


class Gap(msgspec.Struct, frozen=True):
    """
    Notifications were missed that the stream cannot replay.

    The stream goes on behind `cursor`; what was missed, as far as it is still kept,
    is on the pages. `reason` is ``epoch``, ``ahead``, ``diverged``, ``trimmed`` or
    ``too_far``.
    """

    reason: str
    cursor: str


class Page(msgspec.Struct, frozen=True):
    """
    Some notifications of a player, newest first.

    `next` leads to the older ones when given as `before`, and is None on the last
    page. `cursor` is where the log ended at that time: a stream opened from it
    continues this page without loss.
    """

    notifications: tuple[Notification, ...]
    next: str | None = None
    unread: int = 0
    cursor: str | None = None


class Sent(msgspec.Struct, frozen=True):
    """A published notification: the player it went to and the id it has there."""

    to: str
    id: str


class FieldProblem(msgspec.Struct, frozen=True):
    """One thing wrong with a request: where, and what."""

    where: str
    problem: str

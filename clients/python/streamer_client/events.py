"""
The events of a stream: notifications, and what happens to them afterwards.

Each class is a message of the protocol. Unknown fields are ignored, and so are unknown
messages (`wire`).
"""

from __future__ import annotations

import msgspec

from .model import Notification

__all__ = [
    "CursorMoved",
    "Event",
    "Gap",
    "Read",
    "Replaced",
    "Unread",
    "Withdrawn",
]


class Gap(msgspec.Struct, frozen=True, omit_defaults=True, tag="gap"):
    """
    The stream cannot deliver some notifications that the client has missed.

    The stream continues after `cursor`. The pages have what is still kept of the missed
    notifications. `reason` is ``epoch``, ``ahead``, ``diverged``, ``trimmed`` or
    ``too_far``. With `topic` or `everyone`, only what was sent there is missing.
    """

    reason: str
    cursor: str
    topic: str | None = None
    everyone: bool = False


class Withdrawn(msgspec.Struct, frozen=True, omit_defaults=True, tag="withdrawn"):
    """
    A notification was withdrawn or deleted: remove it from the screen.

    An unknown `id` is not an error. `cursor` is as in `Notification`.
    """

    id: str
    cursor: str | None = None


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """A notification was replaced by the one with the id `by`, which follows."""

    id: str
    by: str


class Read(msgspec.Struct, frozen=True, omit_defaults=True, tag="read", kw_only=True):
    """
    Notifications were marked as read, or as unread if `read` is false, on any device.

    They are `ids`, everything up to the cursor `up_to`, or `all`. With none of these it
    is unknown which: the marks were made while the stream was disconnected, or are more
    than the server lists. Read the page again. `unread` counts the whole inbox.
    """

    unread: int
    marks_version: int
    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False
    read: bool = True


class Unread(msgspec.Struct, frozen=True, tag="unread"):
    """The number of unread notifications, where counting them would be wrong."""

    unread: int


class CursorMoved(msgspec.Struct, frozen=True, tag="cursor"):
    """The point after all events so far, once for those without a cursor."""

    cursor: str


Event = Notification | Withdrawn | Replaced | Gap | Read | Unread | CursorMoved

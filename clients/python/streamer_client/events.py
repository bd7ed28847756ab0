"""
What a stream brings: notifications, and what becomes of them afterwards.

Knows the names of the messages on the wire, which these are. A field this version has
never heard of is ignored, and so is a message (`wire`).
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
    Notifications were missed that the stream cannot replay.

    The stream goes on behind `cursor`; what was missed, as far as it is still kept,
    is on the pages. `reason` is ``epoch``, ``ahead``, ``diverged``, ``trimmed`` or
    ``too_far``. With `topic`, or with `everyone`, only what was sent there is missing.
    """

    reason: str
    cursor: str
    topic: str | None = None
    everyone: bool = False


class Withdrawn(msgspec.Struct, frozen=True, omit_defaults=True, tag="withdrawn"):
    """
    A notification is gone: take it off the screen.

    An `id` that is not known is no error. `cursor` is as in `Notification`.
    """

    id: str
    cursor: str | None = None


class Replaced(msgspec.Struct, frozen=True, tag="replaced"):
    """A notification is gone, and the one called `by`, which follows, is instead."""

    id: str
    by: str


class Read(msgspec.Struct, frozen=True, omit_defaults=True, tag="read", kw_only=True):
    """
    Something was marked as read, here or elsewhere; or unread, if `read` is false.

    It is `ids`, everything up to the cursor `up_to`, or `all`. With none of them it is
    not known what, and a page shows it: marks were made while the stream was away, or
    more than the server tells. `unread` counts the whole inbox.
    """

    unread: int
    marks_version: int
    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False
    read: bool = True


class Unread(msgspec.Struct, frozen=True, tag="unread"):
    """How many are unread, where counting notifications does not tell."""

    unread: int


class CursorMoved(msgspec.Struct, frozen=True, tag="cursor"):
    """The place behind everything so far, told once for what came without a cursor."""

    cursor: str


Event = Notification | Withdrawn | Replaced | Gap | Read | Unread | CursorMoved

"""
The types of the messages that a stream sends.

`core.streams.codec` writes them as bytes. These types document them in the contract,
and the tests check what the codec writes against them. The client's messages are the
types of `core.streams.client_messages`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...contract.operation import TIME
from ...model import Notification
from .common.parameters import Count, Id, TopicName

__all__ = ["SERVER_MESSAGES", "StreamNotification"]

Cursor = Annotated[str, Meta(description="An opaque point in the inbox.")]
MarksVersion = Annotated[int, Meta(ge=0, description="Counts changes of read marks.")]
Ref = Annotated[str, Meta(max_length=64, description="That of the command.")]


class StreamNotification(Notification, frozen=True, kw_only=True):
    """A notification, with fields that the server adds. Absent fields are not null."""

    id: Id
    created_at: Annotated[str, TIME]


class HelloMessage(msgspec.Struct, frozen=True, tag="hello"):
    """
    The beginning of a stream.

    `cursor` is where it begins, and `unread` the number of unread notifications there.
    """

    cursor: Cursor
    heartbeat_s: Annotated[int, Meta(ge=1)]
    unread: Count
    marks_version: MarksVersion


class NotificationMessage(msgspec.Struct, frozen=True, tag="notification"):
    """
    A notification.

    Without `cursor` it was sent to a topic or to everyone, or is not stored.
    """

    notification: StreamNotification
    cursor: Cursor | UnsetType = UNSET


class CursorMessage(msgspec.Struct, frozen=True, tag="cursor"):
    """The point after all notifications so far, once for those without a cursor."""

    cursor: Cursor


class WithdrawnMessage(msgspec.Struct, frozen=True, tag="withdrawn"):
    """A notification was withdrawn or deleted: remove it from the screen."""

    id: Id
    cursor: Cursor | UnsetType = UNSET


class ReplacedMessage(msgspec.Struct, frozen=True, tag="replaced"):
    """The notification `id` is replaced by the one that follows, `by`."""

    id: Id
    by: Id


class GapMessage(msgspec.Struct, frozen=True, tag="gap"):
    """
    Some notifications cannot be delivered; the stream continues after `cursor`.

    With `topic` or `everyone`, only what was sent there is missing. A client treats a
    reason that it does not know like any other.
    """

    reason: Literal["too_far", "trimmed", "epoch", "ahead", "diverged"]
    cursor: Cursor
    topic: TopicName | UnsetType = UNSET
    everyone: Literal[True] | UnsetType = UNSET


class ReadMessage(msgspec.Struct, frozen=True, tag="read", kw_only=True):
    """
    Notifications were marked as read, or as unread if `read` is false.

    They are `ids`, everything up to the cursor `up_to`, or `all`. If `ids` is null, the
    server does not say which.
    """

    unread: Count
    marks_version: MarksVersion
    ids: list[Id] | UnsetType | None = UNSET
    up_to: Cursor | UnsetType = UNSET
    all: Literal[True] | UnsetType = UNSET
    read: Literal[False] | UnsetType = UNSET


class UnreadMessage(msgspec.Struct, frozen=True, tag="unread"):
    """The number of unread notifications, where counting would be wrong."""

    unread: Count


class PingMessage(msgspec.Struct, frozen=True, tag="ping"):
    """Asks for a pong."""


class PongMessage(msgspec.Struct, frozen=True, tag="pong"):
    """Answers a ping. On a WebSocket only."""


class ReplyMessage(msgspec.Struct, frozen=True, tag="reply"):
    """
    The command with this `ref` was carried out. On a WebSocket only.

    `unread` is present after `read`.
    """

    ref: Ref
    unread: Count | UnsetType = UNSET


class ErrorMessage(msgspec.Struct, frozen=True, tag="error"):
    """The command with this `ref` was not carried out. On a WebSocket only."""

    ref: Ref
    problem: str


class ByeMessage(msgspec.Struct, frozen=True, tag="bye"):
    """
    The last message: why the stream ends, and when to reconnect.

    Codes 4000-4099: reconnect with back-off. Codes 4100-4199: reconnect after
    `delay_ms`. Codes 4200-4299: do not reconnect with the same credential.
    """

    code: Annotated[int, Meta(ge=4000, le=4299)]
    reason: str
    reconnect: bool
    delay_ms: Annotated[int, Meta(ge=0)]


SERVER_MESSAGES: Final = (
    HelloMessage,
    NotificationMessage,
    CursorMessage,
    WithdrawnMessage,
    ReplacedMessage,
    GapMessage,
    ReadMessage,
    UnreadMessage,
    PingMessage,
    PongMessage,
    ReplyMessage,
    ErrorMessage,
    ByeMessage,
)
"""In the order of PROTOCOL.md."""

"""
The messages of the stream, as JSON text.

Knows which messages a server may send and what a client says. A message of an unknown
type is None, so that a server may be newer than this client; anything else that
cannot be read is `Unreadable`, because skipping it might skip a notification.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .events import CursorMoved, Gap, Read, Replaced, Unread, Withdrawn
from .model import Notification

__all__ = [
    "PING",
    "PONG",
    "AckCommand",
    "AuthCommand",
    "Bye",
    "Command",
    "CommandError",
    "CommandResult",
    "Hello",
    "Message",
    "NotificationMessage",
    "Ping",
    "Pong",
    "ReadCommand",
    "Reply",
    "SubscribeCommand",
    "Unreadable",
    "UnsubscribeCommand",
    "decode",
    "encode",
]

PING: Final = '{"type":"ping"}'
PONG: Final = '{"type":"pong"}'


class Unreadable(Exception):
    """A message is not of the agreed form."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message: from where the stream goes on, and how often it is heard."""

    cursor: str
    heartbeat_s: float = 25.0
    unread: int | None = None
    marks_version: int | None = None


class NotificationMessage(msgspec.Struct, frozen=True, tag="notification"):
    """A notification, and the cursor that is behind it, if it has one."""

    notification: Notification
    cursor: str | None = None


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """The server asks whether anybody is there."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The server is there."""


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """What this side asked for with `ref` is done."""

    ref: str
    unread: int | None = None


class CommandError(msgspec.Struct, frozen=True, tag="error"):
    """What this side asked for with `ref` is not done."""

    ref: str
    problem: str = ""


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """The last message: why, and when to come back."""

    code: int
    reason: str = ""
    delay_ms: int | None = None


CommandResult = Reply | CommandError
Message = (
    Hello
    | NotificationMessage
    | Withdrawn
    | Replaced
    | Gap
    | Read
    | Unread
    | CursorMoved
    | Ping
    | Pong
    | Reply
    | CommandError
    | Bye
)


class ReadCommand(msgspec.Struct, frozen=True, omit_defaults=True, tag="read"):
    """Mark as read: one of the three."""

    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False
    ref: str = ""


class AckCommand(msgspec.Struct, frozen=True, omit_defaults=True, tag="ack"):
    """Everything up to there has come."""

    cursor: str
    ref: str = ""


class SubscribeCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="subscribe"
):
    """Bring these topics as well."""

    topics: tuple[str, ...]
    ref: str = ""


class UnsubscribeCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="unsubscribe"
):
    """Do not bring these topics any more."""

    topics: tuple[str, ...]
    ref: str = ""


class AuthCommand(msgspec.Struct, frozen=True, tag="auth"):
    """Go on with another token."""

    token: str


Command = ReadCommand | AckCommand | SubscribeCommand | UnsubscribeCommand


class _Head(msgspec.Struct, frozen=True):
    type: str


_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_head_decoder = msgspec.json.Decoder(_Head)
_encoder = msgspec.json.Encoder()
_TYPES: Final = frozenset(
    {
        "hello",
        "notification",
        "withdrawn",
        "replaced",
        "gap",
        "read",
        "unread",
        "cursor",
        "ping",
        "pong",
        "reply",
        "error",
        "bye",
    }
)


def encode(command: Command | AuthCommand) -> str:
    """Return `command` as it is sent."""
    return _encoder.encode(command).decode()


def decode(data: str | bytes) -> Message | None:
    """
    Return the message in `data`, None for one of an unknown type.

    Raises:
        Unreadable: It is binary, no JSON, or a known type with wrong fields.
    """
    if isinstance(data, bytes):
        raise Unreadable("a binary message")
    try:
        return _decoder.decode(data)
    # Deep nesting in a notification's data is a RecursionError in msgspec.
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if _type_of(data) in _TYPES:
            raise Unreadable(str(error)) from error
        return None


def _type_of(data: str) -> str:
    try:
        return _head_decoder.decode(data).type
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error

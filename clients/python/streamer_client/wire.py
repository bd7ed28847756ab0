"""
The messages of the stream, as JSON text.

Knows the messages of server and client. A message of an unknown type is None, so a
server may be newer than this client. Anything else that cannot be read is `Unreadable`,
because skipping it might skip a notification.
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
    """A message does not have the form of the protocol."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message: where the stream begins, and its heartbeat."""

    cursor: str
    heartbeat_s: float = 25.0
    unread: int | None = None
    marks_version: int | None = None


class NotificationMessage(msgspec.Struct, frozen=True, tag="notification"):
    """A notification, and the cursor after it, if it has one."""

    notification: Notification
    cursor: str | None = None


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """The server checks whether the client is there."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The server is there."""


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """The command with this `ref` was carried out."""

    ref: str
    unread: int | None = None


class CommandError(msgspec.Struct, frozen=True, tag="error"):
    """The command with this `ref` was not carried out."""

    ref: str
    problem: str = ""


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """The last message: why the stream ends, and when to reconnect."""

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
    """Mark as read: exactly one of `ids`, `up_to` and `all`."""

    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False
    ref: str = ""


class AckCommand(msgspec.Struct, frozen=True, omit_defaults=True, tag="ack"):
    """Everything up to `cursor` has arrived."""

    cursor: str
    ref: str = ""


class SubscribeCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="subscribe"
):
    """Deliver these topics as well."""

    topics: tuple[str, ...]
    ref: str = ""


class UnsubscribeCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="unsubscribe"
):
    """Do not deliver these topics any more."""

    topics: tuple[str, ...]
    ref: str = ""


class AuthCommand(msgspec.Struct, frozen=True, tag="auth"):
    """Continue with another token."""

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
    """Return `command` as JSON text."""
    return _encoder.encode(command).decode()


def decode(data: str | bytes) -> Message | None:
    """
    Return the message in `data`, None for one of an unknown type.

    Raises:
        Unreadable: It is binary, is not JSON, or has a known type and wrong fields.
    """
    if isinstance(data, bytes):
        raise Unreadable("a binary message")
    try:
        return _decoder.decode(data)
    # Deep nesting in the data of a notification is a RecursionError in msgspec.
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if _type_of(data) in _TYPES:
            raise Unreadable(str(error)) from error
        return None


def _type_of(data: str) -> str:
    try:
        return _head_decoder.decode(data).type
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error

"""
The messages of the stream, as JSON text.

Knows which messages a server may send and what a client says. A message of an unknown
type is None, so that a server may be newer than this client; anything else that
cannot be read is `Unreadable`, because skipping it might skip a notification.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .model import Notification

__all__ = [
    "PING",
    "PONG",
    "Bye",
    "GapMessage",
    "Hello",
    "Message",
    "NotificationMessage",
    "Ping",
    "Pong",
    "ReadMessage",
    "Unreadable",
    "decode",
]

PING: Final = '{"type":"ping"}'
PONG: Final = '{"type":"pong"}'


class Unreadable(Exception):
    """A message is not of the agreed form."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message: from where the stream goes on, and how often it is heard."""

    cursor: str
    heartbeat_s: float = 25.0


class NotificationMessage(msgspec.Struct, frozen=True, tag="notification"):
    """A notification, and the cursor that is behind it."""

    cursor: str
    notification: Notification


class GapMessage(msgspec.Struct, frozen=True, tag="gap"):
    """Something is gone; the stream goes on behind `cursor`."""

    reason: str
    cursor: str


class ReadMessage(msgspec.Struct, frozen=True, tag="read"):
    """Something was marked read, here or on another device."""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """The server asks whether anybody is there."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """The server is there."""


class Bye(msgspec.Struct, frozen=True, tag="bye"):
    """The last message: why, and when to come back."""

    code: int
    reason: str = ""
    delay_ms: int | None = None


Message = Hello | NotificationMessage | GapMessage | ReadMessage | Ping | Pong | Bye


class _Head(msgspec.Struct, frozen=True):
    type: str


_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_head_decoder = msgspec.json.Decoder(_Head)
_KNOWN: Final = frozenset(
    {"hello", "notification", "gap", "read", "ping", "pong", "bye"}
)


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
        if _type_of(data) in _KNOWN:
            raise Unreadable(str(error)) from error
        return None


def _type_of(data: str) -> str:
    try:
        return _head_decoder.decode(data).type
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error

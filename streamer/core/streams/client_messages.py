"""
The messages that a WebSocket client may send.

Decides which messages are in the protocol, ``clients/PROTOCOL.md`` section 6. Any other
message is refused as a whole: to misunderstand a command is worse than to refuse it.
Knows nothing of how commands are carried out.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = [
    "CLIENT_MESSAGES",
    "TOPICS_MAX",
    "Acknowledge",
    "Authenticate",
    "Command",
    "MarkRead",
    "Ping",
    "Pong",
    "Subscribe",
    "Unsubscribe",
    "parse_message",
]

REF_CHARS_MAX: Final = 64
"""Characters of a command's `ref`, which its answer repeats."""
MARK_IDS_MAX: Final = 1_000
TOPICS_MAX: Final = 16
"""Topics that one stream may subscribe to, beside those of its player."""


class MarkRead(
    msgspec.Struct, frozen=True, tag="read", forbid_unknown_fields=True, kw_only=True
):
    """Mark notifications as read: exactly one of `ids`, `up_to` and `all`."""

    ids: list[str] | None = None
    up_to: str | None = None
    all: bool | None = None
    ref: str = ""


class Authenticate(msgspec.Struct, frozen=True, tag="auth", forbid_unknown_fields=True):
    """Present a token: as the first message without one, or to renew it."""

    token: str


class Subscribe(
    msgspec.Struct, frozen=True, tag="subscribe", forbid_unknown_fields=True
):
    """Subscribe this stream to more topics."""

    topics: list[str]
    ref: str = ""


class Unsubscribe(
    msgspec.Struct, frozen=True, tag="unsubscribe", forbid_unknown_fields=True
):
    """Unsubscribe this stream from topics that it has subscribed to itself."""

    topics: list[str]
    ref: str = ""


class Acknowledge(msgspec.Struct, frozen=True, tag="ack", forbid_unknown_fields=True):
    """Acknowledge everything up to a cursor."""

    cursor: str
    ref: str = ""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Ask for a pong."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """Answer a ping."""


Command = MarkRead | Authenticate | Subscribe | Unsubscribe | Acknowledge
CLIENT_MESSAGES: Final = (
    Authenticate,
    MarkRead,
    Acknowledge,
    Subscribe,
    Unsubscribe,
    Ping,
    Pong,
)
"""All of them, in the order of PROTOCOL.md."""
_decode: Final = msgspec.json.Decoder(Command | Ping | Pong).decode


def parse_message(text: str) -> Command | Ping | Pong | None:
    """Return a client's message, or None if it is not in the protocol."""
    try:
        message: Command | Ping | Pong = _decode(text.removeprefix("\ufeff"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if isinstance(message, MarkRead) and not _is_one_mark(message):
        return None
    if isinstance(message, Subscribe | Unsubscribe):
        if not 1 <= len(message.topics) <= TOPICS_MAX:
            return None
    if isinstance(message, MarkRead | Subscribe | Unsubscribe | Acknowledge):
        if len(message.ref) > REF_CHARS_MAX:
            return None
    return message


def _is_one_mark(message: MarkRead) -> bool:
    chosen = (message.ids is not None, message.up_to is not None, bool(message.all))
    return sum(chosen) == 1 and len(message.ids or ()) <= MARK_IDS_MAX

"""
What a WebSocket's client may say.

Decides which messages are of the protocol, ``clients/PROTOCOL.md`` section 6. A message
that is not is refused as a whole: a command that is misunderstood is worse than one
that is refused. Knows nothing of what is done about any.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = [
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
MARK_IDS_MAX: Final = 1_000
TOPICS_MAX: Final = 16
"""Topics that one stream listens to on its own account."""


class MarkRead(
    msgspec.Struct, frozen=True, tag="read", forbid_unknown_fields=True, kw_only=True
):
    """A client's wish to mark as read: exactly one of `ids`, `up_to` and `all`."""

    ids: list[str] | None = None
    up_to: str | None = None
    all: bool | None = None
    ref: str = ""


class Authenticate(msgspec.Struct, frozen=True, tag="auth", forbid_unknown_fields=True):
    """A token: the first message of a stream without one, or a fresh one."""

    token: str


class Subscribe(
    msgspec.Struct, frozen=True, tag="subscribe", forbid_unknown_fields=True
):
    """A client's wish to hear topics on this stream, besides what it hears."""

    topics: list[str]
    ref: str = ""


class Unsubscribe(
    msgspec.Struct, frozen=True, tag="unsubscribe", forbid_unknown_fields=True
):
    """A client's wish not to hear topics any more that it has asked for."""

    topics: list[str]
    ref: str = ""


class Acknowledge(msgspec.Struct, frozen=True, tag="ack", forbid_unknown_fields=True):
    """A client's word that it has everything up to a cursor."""

    cursor: str
    ref: str = ""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """A client's question whether anybody is there."""


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    """A client's answer to the same."""


Command = MarkRead | Authenticate | Subscribe | Unsubscribe | Acknowledge
_decode: Final = msgspec.json.Decoder(Command | Ping | Pong).decode


def parse_message(text: str) -> Command | Ping | Pong | None:
    """Return what a client said, or None if it is no message of the protocol."""
    try:
        message: Command | Ping | Pong = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if isinstance(message, MarkRead) and not _is_one_mark(message):
        return None
    if isinstance(message, Subscribe | Unsubscribe):
        few = 1 <= len(message.topics) <= TOPICS_MAX
        if not few or len(message.ref) > REF_CHARS_MAX:
            return None
    return message


def _is_one_mark(message: MarkRead) -> bool:
    chosen = (message.ids is not None, message.up_to is not None, bool(message.all))
    return (
        sum(chosen) == 1
        and len(message.ref) <= REF_CHARS_MAX
        and len(message.ids or ()) <= MARK_IDS_MAX
    )

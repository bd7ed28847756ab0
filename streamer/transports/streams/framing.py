"""
The framing of events: once per event, for all connections.

Encodes WebSocket frames (RFC 6455 section 5.2) and chunks (RFC 9112 section 7.1), or
leaves events unframed where the end of the connection ends the response. Knows bytes.
Knows nothing of the content of events.

A server does not mask its frames, so one `bytes` object serves every connection. A
dispatch passes the same event to each reader in turn; `Framing` caches the last one, as
the codecs do, so only the first reader pays for the framing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import Final

__all__ = [
    "LAST_CHUNK",
    "PING_FRAME",
    "Framing",
    "chunk",
    "close_frame",
    "text_frame",
    "text_frames",
    "unframed",
]

LAST_CHUNK: Final = b"0\r\n\r\n"

_FIN_TEXT: Final = 0x81
_FIN_CLOSE: Final = 0x88
_REASON_BYTES_MAX: Final = 123

PING_FRAME: Final = b"\x89\x00"


class Framing:
    """
    A cache of one framed event, and of one list of events that are written at once.

    A caller compares `event` with its own, calls `frame` if they differ, and reads
    `framed`: half of what a call for each delivery would cost (bench.fanout).

    Args:
        wrap: Frames one event.
        wrap_all: Frames several; by default it wraps all of them as one.

    """

    __slots__ = ("_events", "_framed_events", "_wrap", "_wrap_all", "event", "framed")

    def __init__(
        self,
        wrap: Callable[[bytes], bytes],
        wrap_all: Callable[[list[bytes]], bytes] | None = None,
    ) -> None:
        self._wrap = wrap
        self._wrap_all = wrap_all or (lambda events: wrap(b"".join(events)))
        self.event = self.framed = b""
        self._events: list[bytes] = []
        self._framed_events = b""

    def frame(self, event: bytes) -> None:
        """Frame `event` and keep the result."""
        self.framed = self._wrap(event)
        self.event = event

    def frame_all(self, events: list[bytes]) -> bytes:
        """Return events, of which there has to be one, framed and joined."""
        if events is not self._events:
            self._framed_events = self._wrap_all(events)
            self._events = events
        return self._framed_events


def text_frame(text: bytes) -> bytes:
    """Return a text message of a server, in one frame."""
    return _text_head(len(text)) + text


def text_frames(texts: list[bytes]) -> bytes:
    """Return text messages of a server, each in a frame."""
    heads = map(_text_head, map(len, texts))
    return b"".join(chain.from_iterable(zip(heads, texts, strict=True)))


@lru_cache(maxsize=1024)
def _text_head(size: int) -> bytes:
    # Notifications of one kind have few sizes.
    if size < 126:
        return b"%c%c" % (_FIN_TEXT, size)
    if size < 65_536:
        return b"%c\x7e%b" % (_FIN_TEXT, size.to_bytes(2))
    return b"%c\x7f%b" % (_FIN_TEXT, size.to_bytes(8))


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; a reason of more than 123 bytes is cut."""
    payload = code.to_bytes(2) + reason.encode()[:_REASON_BYTES_MAX]
    return b"%c%c%b" % (_FIN_CLOSE, len(payload), payload)


def chunk(event: bytes) -> bytes:
    """Return a nonempty event as one chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def unframed(event: bytes) -> bytes:
    """Return an event unchanged, for HTTP/1.0."""
    return event

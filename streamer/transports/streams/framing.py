"""
Events as they go over the line, framed once for everybody.

Decides where one event ends and the next begins: WebSocket frames (RFC 6455 section
5.2), chunks (RFC 9112 section 7.1), or nothing where the end of the connection is that
of the answer. Knows bytes. Knows nothing of what is in an event.

A server does not mask its frames, so one `bytes` object serves every connection. A
dispatch gives the same event to each reader in turn; `Framing` keeps the last one, as
the codecs do, so only the first reader pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = [
    "LAST_CHUNK",
    "PING_FRAME",
    "Framing",
    "chunk",
    "close_frame",
    "text_frame",
    "unframed",
]

LAST_CHUNK: Final = b"0\r\n\r\n"

_FIN_TEXT: Final = 0x81
_FIN_CLOSE: Final = 0x88
_REASON_BYTES_MAX: Final = 123

PING_FRAME: Final = b"\x89\x00"


class Framing:
    """
    A way to frame, and what it framed last.

    Whoever writes compares `event` with its own and reads `framed`; that is half of
    what a call would cost for each delivery (bench.fanout).

    Args:
        wrap: How one event is framed.

    """

    __slots__ = ("_wrap", "event", "framed")

    def __init__(self, wrap: Callable[[bytes], bytes]) -> None:
        self._wrap = wrap
        self.event = self.framed = b""

    def frame(self, event: bytes) -> None:
        """Frame another event."""
        self.framed = self._wrap(event)
        self.event = event


def text_frame(text: bytes) -> bytes:
    """Return a whole text message from a server, in one frame."""
    size = len(text)
    if size < 126:
        return b"%c%c%b" % (_FIN_TEXT, size, text)
    if size < 65_536:
        return b"%c\x7e%b%b" % (_FIN_TEXT, size.to_bytes(2), text)
    return b"%c\x7f%b%b" % (_FIN_TEXT, size.to_bytes(8), text)


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; a reason that is too long is cut."""
    payload = code.to_bytes(2) + reason.encode()[:_REASON_BYTES_MAX]
    return b"%c%c%b" % (_FIN_CLOSE, len(payload), payload)


def chunk(event: bytes) -> bytes:
    """Return an event that is not empty as one chunk."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def unframed(event: bytes) -> bytes:
    """Return an event as it is, for HTTP/1.0."""
    return event

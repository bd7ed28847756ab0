"""
Limits on what a WebSocket client sends, and what it has sent before a handover.

The limits hold both within ASGI and after the connection was handed over. Knows nothing
of the content of messages.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from websockets.protocol import Protocol

__all__ = ["CONTROLS_PER_S_MAX", "FRAGMENTS_MAX", "PONGS_BUFFERED_MAX", "UnreadInput"]

CONTROLS_PER_S_MAX: Final = 20
"""
Pings and pongs accepted from a client per second, as many as messages.

Client libraries send one per 20 s.
"""

PONGS_BUFFERED_MAX: Final = 65_536
"""
Buffered bytes above which pings get no pong, so that pongs do not pile up.

RFC 6455 section 5.5.3 allows a later pong to stand for the omitted ones.
"""

FRAGMENTS_MAX: Final = 1_024
"""
Fragments per message. An empty one costs memory but counts nothing against the limit on
a message's bytes.
"""


class UnreadInput(NamedTuple):
    """
    What a connection has received, and nobody consumed, before it was handed over.

    `messages` are complete, None for a binary one. `fragments` belong to an incomplete
    message, of which `parser` may hold more. If no frames were parsed yet, there is no
    parser and everything is in `data`.
    """

    messages: list[str | None]
    fragments: list[bytes]
    is_text: bool
    parser: Protocol | None
    message_bytes_max: int
    data: bytes = b""

    @classmethod
    def from_bytes(cls, data: bytes, message_bytes_max: int) -> UnreadInput:
        """Return unread input of which no frame was parsed yet."""
        return cls([], [], False, None, message_bytes_max, data)

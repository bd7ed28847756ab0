"""
What a WebSocket client may send, and what it has sent before a handover.

Decides the limits that hold both while the app is called through ASGI and after the
connection was handed over. Knows nothing of what a message says.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from websockets.protocol import Protocol

__all__ = ["CONTROLS_PER_S_MAX", "FRAGMENTS_MAX", "PONGS_BUFFERED_MAX", "UnreadInput"]

# Pings and pongs taken from a client within a second. Libraries send one per 20 s; the
# same number as for messages.
CONTROLS_PER_S_MAX: Final = 20

# A client that pings and does not read is owed nothing beyond it: pongs would pile up.
# RFC 6455 section 5.5.3 lets a later pong stand for those left out.
PONGS_BUFFERED_MAX: Final = 65_536

# A fragment of no bytes costs a message limit nothing, and a list entry each.
FRAGMENTS_MAX: Final = 1_024


class UnreadInput(NamedTuple):
    """
    What has come before the connection was handed over.

    `messages` are whole, None for a binary one; `fragments` belong to one that is not,
    and `parser` may have more of it. Where nobody has looked for frames yet there is no
    parser, and all of it is `data`.
    """

    messages: list[str | None]
    fragments: list[bytes]
    is_text: bool
    parser: Protocol | None
    message_bytes_max: int
    data: bytes = b""

    @classmethod
    def from_bytes(cls, data: bytes, message_bytes_max: int) -> UnreadInput:
        """Return what it is where nobody has looked for frames yet."""
        return cls([], [], False, None, message_bytes_max, data)

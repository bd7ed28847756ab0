"""
Requests as bytes, with places for what differs from one to the next.

Knows HTTP/1.1 and the WebSocket handshake. Knows nothing of any server's paths.
"""

from __future__ import annotations

import time

from .load.senders import NOW, PLAYER, SEQUENCE

__all__ = [
    "PLAYER_NAME",
    "RequestParts",
    "get",
    "groups",
    "numbered_text",
    "player_name",
    "post",
    "text",
    "upgrade",
]

RequestParts = list[bytes | str]
"""A request: its bytes, and the names of values that `Template` fills in."""

PLAYER_NAME: RequestParts = [b"p", PLAYER]

_WIDTHS = {NOW: 19, PLAYER: 7, SEQUENCE: 10}


def player_name(number: int) -> str:
    """Return the name that `PLAYER_NAME` writes for a number."""
    return f"p{number:07d}"


def text(size: int) -> RequestParts:
    """Return a text of `size` bytes: mark, due time, sequence number, padding."""
    padding = size - 1 - _WIDTHS[NOW] - 1 - _WIDTHS[SEQUENCE]
    assert padding >= 0, "a text has at least 31 bytes"
    return [b"#", NOW, b".", SEQUENCE, b"x" * padding]


def numbered_text(size: int, number: int | None) -> RequestParts:
    """Return a text with this number, due now; without one, as `text` does."""
    parts = text(size)
    if number is not None:
        parts[parts.index(SEQUENCE)] = b"%010d" % number
        parts[parts.index(NOW)] = b"%019d" % time.monotonic_ns()
    return parts


def groups(players: int, per_request: int) -> list[range]:
    """Return the numbers of players by request."""
    return [
        range(first, min(first + per_request, players))
        for first in range(0, players, per_request)
    ]


def post(
    path: RequestParts, body: RequestParts, headers: RequestParts | None = None
) -> RequestParts:
    """Return a POST; each line of `headers` ends with CRLF."""
    length = sum(_WIDTHS[p] if isinstance(p, str) else len(p) for p in body)
    return [
        b"POST ",
        *path,
        b" HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n" % length,
        *(headers or []),
        b"\r\n",
        *body,
    ]


def get(path: str, headers: str = "") -> bytes:
    """Return a GET; each line of `headers` ends with CRLF."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()


def upgrade(path: str, headers: str = "") -> bytes:
    """Return a WebSocket handshake; each line of `headers` ends with CRLF."""
    return get(
        path,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}",
    )

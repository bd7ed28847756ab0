"""
What a stream may do with the connection below ASGI.

Knows an asyncio transport. Knows nothing of uvicorn: the protocol classes put a handle
into ``scope["extensions"]``, and where another server or a test client calls the app
there is none, so a stream has to do without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["EXTENSION", "Handle", "find_handle"]

EXTENSION: Final = "streamer.transport"
"""Name of the ASGI extension, on scopes of both types, ``http`` and ``websocket``."""


class Handle:
    """One connection as a stream sees it: how far behind it is, and an axe."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def buffered(self) -> int:
        """Return the bytes written that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """
        Close at once and drop what is buffered. A second call does nothing.

        A reader that stopped reading cannot be told anything: a goodbye would queue
        behind what it does not take.
        """
        self._transport.abort()


def find_handle(scope: Mapping[str, Any]) -> Handle | None:
    """Return the handle of the connection behind `scope`, or None without ours."""
    extensions = scope.get("extensions") or {}
    handle = extensions.get(EXTENSION)
    return handle if isinstance(handle, Handle) else None

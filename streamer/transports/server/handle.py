"""
What a stream may do with the connection below ASGI.

Knows an asyncio transport. Knows nothing of uvicorn: the protocol classes put a handle
into ``scope["extensions"]``, and where another server or a test client calls the app
there is none, so a stream has to do without.

A stream that is handed the connection goes on as the transport's own protocol. The
server's protocol, the request and the task that has served it are garbage then, which
is most of what a connection weighs.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "EXTENSION",
    "NO_DESCRIPTOR",
    "WRITE_BUFFER_HIGH_BYTES",
    "WRITE_BUFFER_LOW_BYTES",
    "Handle",
    "HandsOver",
    "Successor",
    "find_descriptor",
    "find_handle",
]

EXTENSION: Final = "streamer.transport"
"""Name of the ASGI extension, on scopes of both types, ``http`` and ``websocket``."""

WRITE_BUFFER_HIGH_BYTES: Final = 65_536
"""Bytes that may wait in a transport before it calls `pause_writing`."""

WRITE_BUFFER_LOW_BYTES: Final = 16_384
"""
Bytes left in a paused transport at which it calls `resume_writing`.

The app's `send` waits between the two. uvloop's own low mark is 16 bytes, which would
empty the pipe before anything is written again.
"""

NO_DESCRIPTOR: Final = -1
"""Where there is none to write to, or none that may be written to."""

_OPEN_UNTIL_LOST: Final[list[type]] = []
"""
Transports that write at once where nothing waits, with nothing of their own around it,
and that close their socket after they have said `connection_lost`, never before.
"""
with contextlib.suppress(ImportError):
    from uvloop import loop

    # They are not in its stubs. Behind TLS there is another one.
    _OPEN_UNTIL_LOST.extend(
        getattr(loop, name) for name in ("TCPTransport", "UnixTransport")
    )

_HUNG_UP: Final[int] = getattr(select, "POLLRDHUP", 0)
"""Linux has it, macOS has not."""


class Successor(asyncio.Protocol):
    """What a connection can be handed over to; the server ends it by these."""

    __slots__ = ()

    transport: asyncio.Transport

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        rest: object,
        head: bytes = b"",
    ) -> None:
        """
        Go on with a connection. From here on `connection_lost` comes, once.

        Args:
            transport: It.
            connections: The server's, which are ended with it: to be left when the
                connection is lost.
            rest: What its protocol has received and nobody has taken.
            head: What comes in front of all that is written.

        """
        raise NotImplementedError

    def shutdown(self) -> None:
        """End at once; the server does."""
        raise NotImplementedError


class HandsOver:
    """A server's protocol that can let a connection go."""

    __slots__ = ()

    def hand_over(self, successor: Successor) -> None:
        """Make `successor` the connection's protocol, and forget the connection."""
        raise NotImplementedError

    def leave_unframed(self) -> None:
        """Announce no chunks in the head of an answer that is to be handed over."""
        # What is no HTTP answer has none.


class Handle:
    """One connection as a stream sees it: how far behind it is, an axe, and its key."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def is_gone(self) -> bool:
        """
        Whether the connection is lost, or about to be.

        The kernel is asked too: where thousands have come and given up, the loop hears
        of each when it has served those before it.
        """
        return self._transport.is_closing() or _has_hung_up(self._transport)

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

    def drop_if_gone(self) -> bool:
        """Abort the connection if it is gone, with nobody to answer; say if it was."""
        is_gone = self.is_gone
        if is_gone:
            self.abort()
        return is_gone

    def leave_unframed(self) -> None:
        """Have no chunks announced: whoever takes the connection sends none."""
        protocol = self._transport.get_protocol()
        if isinstance(protocol, HandsOver):
            protocol.leave_unframed()

    def hand_over(self, successor: Successor) -> bool:
        """
        Give the connection to `successor`, between two events of the loop.

        Returns whether it did. A connection that is closing may have told its end
        already; it stays with who has heard of it.
        """
        protocol = self._transport.get_protocol()
        if self._transport.is_closing() or not isinstance(protocol, HandsOver):
            return False
        protocol.hand_over(successor)
        return True


def _has_hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed its side, as far as this system can tell."""
    connection = transport.get_extra_info("socket")
    if connection is None or _HUNG_UP == 0:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def find_descriptor(transport: asyncio.Transport) -> int:
    """
    Return the descriptor to which bytes may be written past a transport.

    `NO_DESCRIPTOR` while something waits in it, which comes first, when it is closing,
    and where it does more than to write. Whoever keeps the descriptor gives it up in
    `connection_lost`, and with whatever else it leaves to the transport.
    """
    if type(transport) not in _OPEN_UNTIL_LOST:
        return NO_DESCRIPTOR
    if transport.get_write_buffer_size() or transport.is_closing():
        return NO_DESCRIPTOR
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor


def find_handle(scope: Mapping[str, Any]) -> Handle | None:
    """Return the handle of the connection behind `scope`, or None without ours."""
    extensions = scope.get("extensions") or {}
    handle = extensions.get(EXTENSION)
    return handle if isinstance(handle, Handle) else None

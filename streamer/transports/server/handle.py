"""
A stream's access to the connection below ASGI.

The protocol classes put a `Handle` into ``scope["extensions"]``. Through it a stream
takes over the connection: it becomes the transport's protocol, and the server's
protocol, the request and the task that served it become garbage, which is most of the
memory of a connection. Knows asyncio transports. Knows nothing of uvicorn; other
servers and test clients put no handle into their scopes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from ...compiled.fanout import send_to_all
from .websocket_input import UnreadInput

__all__ = [
    "EXTENSION",
    "NULL_TRANSPORT",
    "WRITE_BUFFER_HIGH_BYTES",
    "WRITE_BUFFER_LOW_BYTES",
    "Detachable",
    "Handle",
    "RawSocket",
    "Successor",
    "find_handle",
]

S = TypeVar("S", bound="RawSocket")

EXTENSION: Final = "streamer.transport"
"""Name of the ASGI extension in scopes of type ``http`` and ``websocket``."""

WRITE_BUFFER_HIGH_BYTES: Final = 65_536
"""Bytes that may wait in a transport before it calls `pause_writing`."""

WRITE_BUFFER_LOW_BYTES: Final = 16_384
"""
Bytes left in a paused transport at which it calls `resume_writing`.

The app's `send` waits between the two. uvloop's own low mark is 16 bytes, which would
empty the pipe before anything is written again.
"""

_NO_DESCRIPTOR: Final = -1

_OPEN_UNTIL_LOST: Final[list[type]] = []
"""
The transports past which `RawSocket` writes.

They write at once if nothing waits, write the bytes unchanged, and close their socket
after they have called `connection_lost`, never before.
"""
with contextlib.suppress(ImportError):
    from uvloop import loop

    # uvloop's stubs leave them out. TLS has a transport class of its own.
    _OPEN_UNTIL_LOST.extend(
        getattr(loop, name) for name in ("TCPTransport", "UnixTransport")
    )

_POLLRDHUP: Final[int] = getattr(select, "POLLRDHUP", 0)
"""0 where the system does not have it, such as macOS."""


class Successor(asyncio.Protocol):
    """A protocol that takes over a connection; the server closes it through this."""

    __slots__ = ()

    transport: asyncio.Transport

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        unread: UnreadInput | None,
        head: bytes = b"",
    ) -> None:
        """
        Take over a connection. `connection_lost` will be called exactly once.

        Args:
            transport: The connection's transport.
            connections: The connections that the server closes when it stops. The
                successor adds itself, and removes itself in `connection_lost`.
            unread: On a WebSocket, what was received and not yet consumed.
            head: Bytes to be written first.

        """
        raise NotImplementedError

    def shutdown(self) -> None:
        """Close at once. The server calls this when it stops."""
        raise NotImplementedError


class Detachable:
    """A protocol of the server that can hand its connection over."""

    __slots__ = ()

    def hand_over(self, successor: Successor) -> None:
        """Make `successor` the transport's protocol, and give the connection up."""
        raise NotImplementedError

    def disable_chunking(self) -> None:
        """Announce no chunked encoding in the head of the response."""
        # Only HTTP responses have one.


class Handle:
    """One connection as a stream sees it."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    @property
    def is_gone(self) -> bool:
        """
        Whether the connection is lost, or its peer has closed it.

        Asks the kernel too: when thousands of clients connect and give up, the event
        loop learns of each only after it has served the ones before.
        """
        return self._transport.is_closing() or _peer_has_closed(self._transport)

    def buffered(self) -> int:
        """Return how many written bytes the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """
        Close at once and drop what is buffered. A second call does nothing.

        For a client that stopped reading: a close frame would wait behind the bytes
        that the client does not read.
        """
        self._transport.abort()

    def abort_if_gone(self) -> bool:
        """Abort the connection if its peer is gone; return whether it was."""
        is_gone = self.is_gone
        if is_gone:
            self.abort()
        return is_gone

    def disable_chunking(self) -> None:
        """Announce no chunked encoding; a stream over HTTP/1.0 sends no chunks."""
        protocol = self._transport.get_protocol()
        if isinstance(protocol, Detachable):
            protocol.disable_chunking()

    def hand_over(self, successor: Successor) -> bool:
        """
        Hand the connection over to `successor`, synchronously.

        Returns False, and does nothing, if the connection is closing: its present
        protocol may have got `connection_lost` already.
        """
        protocol = self._transport.get_protocol()
        if self._transport.is_closing() or not isinstance(protocol, Detachable):
            return False
        protocol.hand_over(successor)
        return True


def _peer_has_closed(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed its side; False where the system cannot tell."""
    connection = transport.get_extra_info("socket")
    if connection is None or _POLLRDHUP == 0:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), _POLLRDHUP)
    return bool(poll.poll(0))


class _NullTransport(asyncio.Transport):
    """Stands in for a transport that is lost; discards what is written."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


NULL_TRANSPORT: Final = _NullTransport()


class RawSocket:
    """
    A transport, and its socket's descriptor while bytes may be written past it.

    While nothing waits in the transport, bytes go to the descriptor: the call into the
    transport would be a twentieth of a delivery. What the socket does not take at once
    is left to the transport, and so is everything after it until the transport has
    written all of it; so bytes keep their order.

    A descriptor must not be used once its socket is closed, since the kernel gives the
    number to the next connection. So no other class sees it, and it is given up

    - with every byte that is left to the transport, until nothing waits there;
    - in `release`, before the transport is closed;
    - in `discard_writes`, which `connection_lost` has to call: the transport closes its
      socket next.

    Streams derive from this instead of holding one, because each object that a delivery
    touches is a miss of the CPU's cache.
    """

    __slots__ = ("_descriptor", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        """To be closed or aborted through `release` only."""
        self._descriptor = _NO_DESCRIPTOR

    def attach(self, transport: asyncio.Transport) -> None:
        """Write to `transport` from here on."""
        self.transport = transport
        self._descriptor = _find_descriptor(transport)

    def has_room(self, size: int, buffer_bytes_max: int) -> bool:
        """Return whether nothing waits, or at most so much with `size` bytes more."""
        if self._descriptor >= 0:
            return True
        waiting = self.transport.get_write_buffer_size()
        return not waiting or waiting + size <= buffer_bytes_max

    def send(self, data: bytes, buffer_bytes_max: int = sys.maxsize) -> bool:
        """
        Send bytes after all that were sent before, without waiting.

        Returns False, and sends nothing, if there is no room for them; see `has_room`.
        """
        descriptor, sent = self._descriptor, 0
        if descriptor >= 0:
            try:
                sent = os.write(descriptor, data)
            except OSError:
                # The socket is full or broken. The transport gets the same error when
                # it writes, and handles it.
                pass
        else:
            # As in `has_room`: a call for each delivery is too much.
            waiting = self.transport.get_write_buffer_size()
            if waiting and waiting + len(data) > buffer_bytes_max:
                return False
        if sent < len(data):
            self.hand_to_transport(data[sent:])
        return True

    @staticmethod
    def send_all(sockets: Sequence[S], data: bytes, buffer_bytes_max: int) -> list[S]:
        """Send to each as `send` does; return those without room."""
        # This is all there is to a delivery (bench.fanout): the transport would make
        # the same system call, and its part before that is a twentieth of it.
        full, descriptors = [], [socket._descriptor for socket in sockets]
        for i, sent in send_to_all(descriptors, data):
            socket = sockets[i]
            if socket._descriptor >= 0:
                socket.hand_to_transport(data[sent:])
            elif not socket.send(data, buffer_bytes_max):
                full.append(socket)
        return full

    def hand_to_transport(self, data: bytes) -> None:
        """Leave bytes to the transport, and write past it again if it sends them."""
        transport = self.transport
        transport.write(data)
        self._descriptor = _find_descriptor(transport)

    def release(self) -> asyncio.Transport:
        """Return the transport to be closed; nothing is written past it any more."""
        self._descriptor = _NO_DESCRIPTOR
        return self.transport

    def discard_writes(self) -> None:
        """Give the transport up; what is sent from here on is discarded."""
        self._descriptor = _NO_DESCRIPTOR
        self.transport = NULL_TRANSPORT


def _find_descriptor(transport: asyncio.Transport) -> int:
    """
    Return the descriptor to which bytes may be written past a transport.

    `_NO_DESCRIPTOR` if bytes wait in the transport, which have to go first, if it is
    closing, and if it is of a kind that does more than write, such as TLS.
    """
    if type(transport) not in _OPEN_UNTIL_LOST:
        return _NO_DESCRIPTOR
    if transport.get_write_buffer_size() or transport.is_closing():
        return _NO_DESCRIPTOR
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor


def find_handle(scope: Mapping[str, Any]) -> Handle | None:
    """Return the handle in an ASGI scope, None on servers without the extension."""
    extensions = scope.get("extensions") or {}
    handle = extensions.get(EXTENSION)
    return handle if isinstance(handle, Handle) else None

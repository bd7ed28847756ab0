"""
Streams that have left ASGI: a session's sink on the transport itself.

A detached stream has no task, no queue and no timer of its own. `write` passes an event
to the kernel or to the transport before it returns; what waits is in the transport's
buffer. While that is empty, bytes go to the socket past the transport. Knows asyncio
transports and the service's `Connection`, which it leaves in `connection_lost`: asyncio
calls that exactly once, however the connection ends. Knows nothing of uvicorn, nor of
what is sent.

Until the connection is handed over, the response's head is not written, and events that
the session writes are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, ClassVar, Final

from ...errors import Disconnect
from ...service.streams.admission import Connection
from ..server.handle import NULL_TRANSPORT, RawSocket, Successor
from ..server.websocket_input import UnreadInput
from .framing import LAST_CHUNK, Framing

__all__ = ["CLOSE_TIMEOUT_S", "BatchWriter", "Detached", "EventStream"]

FIRST_WRITE_WAIT_S: Final = 0.1
"""How long a response's head waits for the first event, to be written with it."""

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a client may take to read what is left and to close its side."""

IGNORED_BYTES_MAX: Final = 65_536
"""
Bytes that a client may send on an event stream before it is disconnected.

After its request it has nothing to send.
"""


class BatchWriter(Framing):
    """Frames events for connections of one kind, and writes one event to many."""

    __slots__ = ()

    def write_all(
        self, sinks: Iterable[Detached], event: bytes, buffer_bytes_max: int
    ) -> list[Detached]:
        """Write to each as `Detached.write` does; return the sinks without room."""
        if event is not self.event:
            self.frame(event)
        return RawSocket.send_all(list(sinks), self.framed, buffer_bytes_max)


class Detached(RawSocket, Successor):
    """
    The base of both kinds of streams.

    Args:
        connection: The stream's slot and lease; left when the connection is lost.
        batch_writer: Frames events; shared by all streams of a kind.
        preamble: Begins the session's first event, if not empty.

    """

    PROBE: ClassVar[bytes | None] = None
    """The event that checks whether the client still responds."""

    __slots__ = (
        "_close_timer",
        "_connection",
        "_server_connections",
        "_waiting_since_s",
        "batch_writer",
    )

    def __init__(
        self, connection: Connection, batch_writer: BatchWriter, preamble: bytes = b""
    ) -> None:
        if preamble:
            batch_writer.frame(preamble)
        super().__init__(PendingTransport(batch_writer.framed if preamble else b""))
        self._connection = connection
        self.batch_writer = batch_writer
        self._server_connections: set[Any] = set()
        self._waiting_since_s: float | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    # As a session's sink.

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        if event is self.PROBE:
            if not self.has_room(len(event), buffer_bytes_max):
                return False
            if self._close_if_silent():
                return True
        framing = self.batch_writer
        if event is not framing.event:
            framing.frame(event)
        return self.send(framing.framed, buffer_bytes_max)

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        framed = self.batch_writer.frame_all(events)
        if len(framed) <= buffer_bytes_max:
            return self.send(framed, buffer_bytes_max)
        # One event may be larger than the limit, and events that follow it may not.
        return all(self.write(event, buffer_bytes_max) for event in events)

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def waiting_since_s(self) -> float | None:
        return self._waiting_since_s

    def close(self, disconnect: Disconnect) -> None:
        raise NotImplementedError

    def abort(self, disconnect: Disconnect) -> None:
        self.release().abort()

    # Before the handover.

    async def first_write(self) -> None:
        """Wait for the session's first write, for at most `FIRST_WRITE_WAIT_S`."""
        if isinstance(self.transport, PendingTransport):
            await self.transport.first_write()

    # As a transport's protocol.

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        unread: UnreadInput | None,
        head: bytes = b"",
    ) -> None:
        pending = self.transport
        assert isinstance(pending, PendingTransport)
        self._connection.stay()
        self._server_connections = connections
        connections.add(self)
        self.attach(transport)
        if pending.aborted:
            self.release().abort()
            return
        self.send(b"".join([head, pending.preamble, *pending.chunks]))
        if pending.deferred_close is not None:
            pending.deferred_close()

    def pause_writing(self) -> None:
        # Between the two marks of the buffer bytes do not count as waiting: a client
        # that reads is above the upper mark for a moment only.
        self._waiting_since_s = monotonic()
        self._connection.due_sooner()

    def resume_writing(self) -> None:
        self._waiting_since_s = None

    def eof_received(self) -> bool:
        """
        Return whether the connection stays open, to be closed in a later turn.

        The transport closes it otherwise. When thousands of clients disconnect at once,
        it would close all of them in one turn of the event loop.
        """
        if self._descriptor < 0 and self.transport.get_extra_info("sslcontext"):
            return False  # TLS cannot stay open: the transport closes it in any case.
        return self._connection.close_soon(self._close_after_eof)

    def _close_after_eof(self) -> None:
        self.release().close()

    def connection_lost(self, exc: Exception | None) -> None:
        # First: the transport closes the socket after this, and the session may still
        # write.
        self.discard_writes()
        self._server_connections.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._connection.leave()

    def _close_if_silent(self) -> bool:
        """Close the connection if the last probe got no answer; return whether so."""
        return False

    def _finish_with(self, last_step: Callable[[], object]) -> None:
        """Do `last_step`, and abort the connection after `CLOSE_TIMEOUT_S`."""
        transport = self.transport
        if isinstance(transport, PendingTransport):
            transport.deferred_close = lambda: self._finish_with(last_step)
        elif transport is not NULL_TRANSPORT:
            self._finish_on(transport, last_step)

    def _finish_on(
        self, transport: asyncio.Transport, last_step: Callable[[], object]
    ) -> None:
        last_step()
        loop = asyncio.get_running_loop()
        self._close_timer = loop.call_later(CLOSE_TIMEOUT_S, transport.abort)


class EventStream(Detached):
    """
    A stream of Server-Sent Events.

    Args:
        connection: As for `Detached`.
        batch_writer: One of `framing.chunk`, or of `framing.unframed` for HTTP/1.0.
        preamble: As for `Detached`.
        chunked: Whether the response is chunked, and so ends with an empty chunk.

    """

    __slots__ = ("_chunked", "_ignored_bytes")

    def __init__(
        self,
        connection: Connection,
        batch_writer: BatchWriter,
        *,
        preamble: bytes = b"",
        chunked: bool = True,
    ) -> None:
        super().__init__(connection, batch_writer, preamble)
        self._chunked = chunked
        self._ignored_bytes = 0

    def close(self, disconnect: Disconnect) -> None:
        self._finish_with(self._finish)

    def shutdown(self) -> None:
        self.release().close()

    def data_received(self, data: bytes) -> None:
        # Reading is not paused: a transport that does not read misses the disconnect.
        self._ignored_bytes += len(data)
        if self._ignored_bytes > IGNORED_BYTES_MAX:
            self.release().abort()

    def _finish(self) -> None:
        if self._chunked:
            self.send(LAST_CHUNK)
        self.release().close()


class PendingTransport(asyncio.Transport):
    """
    Stands in for the transport until the connection is handed over.

    Keeps what is written. The preamble is not counted as waiting.
    """

    def __init__(self, preamble: bytes) -> None:
        super().__init__()
        self.preamble = preamble
        self.chunks: list[bytes] = []
        self.aborted = False
        self.deferred_close: Callable[[], None] | None = None
        self._bytes = 0
        self._first_write: asyncio.Future[None] | None = None

    async def first_write(self) -> None:
        """Return on the first `write` or `abort`, or after `FIRST_WRITE_WAIT_S`."""
        if not self.chunks and not self.aborted:
            loop = asyncio.get_running_loop()
            self._first_write = loop.create_future()
            late = loop.call_later(FIRST_WRITE_WAIT_S, self._wake)
            await self._first_write
            late.cancel()

    def _wake(self) -> None:
        if self._first_write is not None and not self._first_write.done():
            self._first_write.set_result(None)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.chunks.append(bytes(data))
        self._bytes += len(data)
        self._wake()

    def get_write_buffer_size(self) -> int:
        return self._bytes

    def abort(self) -> None:
        self.aborted = True
        self.chunks.clear()
        self._bytes = 0
        self._wake()

    def close(self) -> None:
        self.abort()

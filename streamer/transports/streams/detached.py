"""
A stream that has left ASGI behind: a session's sink on the bare transport.

Decides nothing of what is sent: the session has decided that an event fits before it
comes here, and it is with the kernel or the transport before `write` returns. There is
no task, no queue and no timer per connection; what waits is what the transport has not
got rid of. While nothing does, bytes go to the socket past the transport. Knows an
asyncio transport and a `Connection`, which it leaves when the connection is lost: the
loop says so exactly once, however that came about. Knows nothing of uvicorn.

Until the connection is handed over, the answer's head is not written; what the session
says meanwhile is kept.
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
"""How long an answer's head waits for what follows it, to go out with that."""

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a client may take to take its leave."""

IGNORED_BYTES_MAX: Final = 65_536
"""Who listens to an event stream has nothing to say."""


class BatchWriter(Framing):
    """Framing for connections of a kind, and how one event goes to many of them."""

    __slots__ = ()

    def write_all(
        self, sinks: Iterable[Detached], event: bytes, buffer_bytes_max: int
    ) -> list[Detached]:
        """Write to each as `Detached.write` does; return those without room."""
        if event is not self.event:
            self.frame(event)
        return RawSocket.send_all(list(sinks), self.framed, buffer_bytes_max)


class Detached(RawSocket, Successor):
    """
    What both kinds of streams have in common.

    Args:
        connection: What it holds; given back when the connection is lost.
        batch_writer: How events are framed, shared by all of its kind.
        preamble: What goes ahead of every event, if there is something.

    """

    PROBE: ClassVar[bytes | None] = None
    """The event by which it is found out whether somebody is there."""

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

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def waiting_since_s(self) -> float | None:
        return self._waiting_since_s

    def close(self, disconnect: Disconnect) -> None:
        raise NotImplementedError

    def abort(self, disconnect: Disconnect) -> None:
        self.release().abort()

    # Towards the connection.

    async def first_write(self) -> None:
        """Return when there is something to write, or will not be for a while."""
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
        # Between the marks nobody waits: a reader that takes what it gets is above the
        # upper one for a moment only.
        self._waiting_since_s = monotonic()
        self._connection.due_sooner()

    def resume_writing(self) -> None:
        self._waiting_since_s = None

    def connection_lost(self, exc: Exception | None) -> None:
        # First of all: the transport closes the socket next. And the session may still
        # write.
        self.discard_writes()
        self._server_connections.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._connection.leave()

    def _close_if_silent(self) -> bool:
        """Give it up if the last probe was not answered; return whether it is."""
        return False

    def _finish_with(self, last_step: Callable[[], object]) -> None:
        """Do `last_step` last, and cut off a client that does not take it in time."""
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
        batch_writer: Of `framing.chunk`, or of `framing.unframed` for HTTP/1.0.
        preamble: As for `Detached`.
        chunked: Whether the answer ends with a chunk of its own.

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
        # Not paused instead: a transport that does not read does not notice the end.
        self._ignored_bytes += len(data)
        if self._ignored_bytes > IGNORED_BYTES_MAX:
            self.release().abort()

    def _finish(self) -> None:
        if self._chunked:
            self.send(LAST_CHUNK)
        self.release().close()


class PendingTransport(asyncio.Transport):
    """What stands for a transport until there is one; nobody waits for a preamble."""

    def __init__(self, preamble: bytes) -> None:
        super().__init__()
        self.preamble = preamble
        self.chunks: list[bytes] = []
        self.aborted = False
        self.deferred_close: Callable[[], None] | None = None
        self._bytes = 0
        self._first_write: asyncio.Future[None] | None = None

    async def first_write(self) -> None:
        """Return at the first of `write` and `abort`, or after `FIRST_WRITE_WAIT_S`."""
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

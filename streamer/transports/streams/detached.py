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
from ..server.websocket_input import Rest
from .framing import LAST_CHUNK, Framing

__all__ = ["FAREWELL_S", "BatchWriter", "Detached", "EventStream"]

BEGUN_WITHIN_S: Final = 0.1
"""How long an answer's head waits for what follows it, to go out with that."""

FAREWELL_S: Final = 2.0
"""How long a client may take to take its leave."""

IGNORED_BYTES_MAX: Final = 65_536
"""Who listens to an event stream has nothing to say."""


class BatchWriter(Framing):
    """Framing for connections of a kind, and how one event goes to many of them."""

    __slots__ = ()

    def write_all(
        self, sinks: Iterable[Detached], event: bytes, most: int
    ) -> list[Detached]:
        """Write to each as `Detached.write` does; return those without room."""
        if event is not self.event:
            self.take(event)
        return RawSocket.send_all(list(sinks), self.framed, most)


class Detached(RawSocket, Successor):
    """
    What both kinds of streams have in common.

    Args:
        listener: What it holds; given back when the connection is lost.
        batch_writer: How events are framed, shared by all of its kind.
        preamble: What goes ahead of every event, if there is something.

    """

    PROBE: ClassVar[bytes | None] = None
    """The event by which it is found out whether somebody is there."""

    __slots__ = (
        "_connections",
        "_listener",
        "_parting",
        "_since_s",
        "batch_writer",
    )

    def __init__(
        self, listener: Connection, batch_writer: BatchWriter, preamble: bytes = b""
    ) -> None:
        if preamble:
            batch_writer.take(preamble)
        super().__init__(_Waiting(batch_writer.framed if preamble else b""))
        self._listener = listener
        self.batch_writer = batch_writer
        self._connections: set[Any] = set()
        self._since_s: float | None = None
        self._parting: asyncio.TimerHandle | None = None

    # As a session's sink.

    def write(self, event: bytes, most: int) -> bool:
        if event is self.PROBE:
            if not self.has_room(len(event), most):
                return False
            if self._is_given_up():
                return True
        framing = self.batch_writer
        if event is not framing.event:
            framing.take(event)
        return self.send(framing.framed, most)

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def waiting_since_s(self) -> float | None:
        return self._since_s

    def close(self, disconnect: Disconnect) -> None:
        raise NotImplementedError

    def abort(self, disconnect: Disconnect) -> None:
        self.release().abort()

    # Towards the connection.

    async def begun(self) -> None:
        """Return when there is something to write, or will not be for a while."""
        if isinstance(self.transport, _Waiting):
            await self.transport.begun()

    # As a transport's protocol.

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        rest: Rest | None,
        head: bytes = b"",
    ) -> None:
        waiting = self.transport
        assert isinstance(waiting, _Waiting)
        self._listener.stay()
        self._connections = connections
        connections.add(self)
        self.attach(transport)
        if waiting.aborted:
            self.release().abort()
            return
        self.send(b"".join([head, waiting.preamble, *waiting.chunks]))
        if waiting.closing is not None:
            waiting.closing()

    def pause_writing(self) -> None:
        # Between the marks nobody waits: a reader that takes what it gets is above the
        # upper one for a moment only.
        self._since_s = monotonic()
        self._listener.due_sooner()

    def resume_writing(self) -> None:
        self._since_s = None

    def connection_lost(self, exc: Exception | None) -> None:
        # First of all: the transport closes the socket next. And the session may still
        # write.
        self.discard_writes()
        self._connections.discard(self)
        if self._parting is not None:
            self._parting.cancel()
        self._listener.leave()

    def _is_given_up(self) -> bool:
        """Give it up if the last probe was not answered; return whether it is."""
        return False

    def _part(self, then: Callable[[], object]) -> None:
        """Do `then` as the last thing, and cut off who does not take it in time."""
        transport = self.transport
        if isinstance(transport, _Waiting):
            transport.closing = lambda: self._part(then)
        elif transport is not NULL_TRANSPORT:
            self._part_from(transport, then)

    def _part_from(
        self, transport: asyncio.Transport, then: Callable[[], object]
    ) -> None:
        then()
        loop = asyncio.get_running_loop()
        self._parting = loop.call_later(FAREWELL_S, transport.abort)


class EventStream(Detached):
    """
    A stream of Server-Sent Events.

    Args:
        listener: As for `Detached`.
        batch_writer: Of `framing.chunk`, or of `framing.unframed` for HTTP/1.0.
        preamble: As for `Detached`.
        chunked: Whether the answer ends with a chunk of its own.

    """

    __slots__ = ("_chunked", "_ignored_bytes")

    def __init__(
        self,
        listener: Connection,
        batch_writer: BatchWriter,
        *,
        preamble: bytes = b"",
        chunked: bool = True,
    ) -> None:
        super().__init__(listener, batch_writer, preamble)
        self._chunked = chunked
        self._ignored_bytes = 0

    def close(self, disconnect: Disconnect) -> None:
        self._part(self._finish)

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


class _Waiting(asyncio.Transport):
    """What stands for a transport until there is one; nobody waits for a preamble."""

    def __init__(self, preamble: bytes) -> None:
        super().__init__()
        self.preamble = preamble
        self.chunks: list[bytes] = []
        self.aborted = False
        self.closing: Callable[[], None] | None = None
        self._bytes = 0
        self._begun: asyncio.Future[None] | None = None

    async def begun(self) -> None:
        """Return at the first of `write` and `abort`, or after `BEGUN_WITHIN_S`."""
        if not self.chunks and not self.aborted:
            loop = asyncio.get_running_loop()
            self._begun = loop.create_future()
            late = loop.call_later(BEGUN_WITHIN_S, self._wake)
            await self._begun
            late.cancel()

    def _wake(self) -> None:
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)

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

"""
A WebSocket that has left ASGI behind.

Decides what ends it from below: a peer that is silent, one that floods, one whose
frames are no frames. Knows the session and who carries its commands out. Knows nothing
of what a message says.

Frames are answered where they arrive. A command has to wait for the store, so there is
a task for as long as one is being carried out, and nothing more is read meanwhile: what
one read has brought is all that can wait, and the session's rate bounds that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import Any, Final

from ...core.streams.client_messages import Command
from ...core.streams.codec import WebSocketCodec
from ...core.streams.session import Session
from ...errors import AHEAD_OF_RATE, PROTOCOL, RESYNC, SILENT, Disconnect
from ...service.streams.admission import Connection
from ..server.refusal import LINGER_S
from ..server.websocket_input import CONTROLS_PER_S_MAX, PONGS_BUFFERED_MAX, Rest
from .commands import Commands
from .detached import BatchWriter, Detached
from .framing import PING_FRAME, close_frame, text_frame
from .inbound import Heard, Inbound, is_pong

__all__ = [
    "DetachedWebSocket",
    "websocket_batch_writer",
]

SERVICE_RESTART: Final = 1012

_PING: Final = WebSocketCodec().ping()

_logger = logging.getLogger(__name__)


def websocket_batch_writer() -> BatchWriter:
    """Return what frames events for all WebSockets; with a ping goes a ping frame."""

    def wrap(event: bytes) -> bytes:
        frame = text_frame(event)
        return frame + PING_FRAME if event == _PING else frame

    return BatchWriter(wrap)


class DetachedWebSocket(Detached):
    """
    One WebSocket, from the handshake to the close.

    Args:
        listener: As for `Detached`.
        batch_writer: As `websocket_batch_writer` returns it.
        commands: Who carries out what the client asks for.

    """

    PROBE = _PING

    __slots__ = (
        "_commands",
        "_controls_at_s",
        "_inbound",
        "_is_deaf",
        "_message_bytes_max",
        "_unanswered",
        "_work",
        "session",
    )

    session: Session
    """Whose sink this is; to be set before `begin`."""

    def __init__(
        self, listener: Connection, batch_writer: BatchWriter, commands: Commands
    ) -> None:
        super().__init__(listener, batch_writer)
        self._commands = commands
        self._inbound: Inbound | None = None
        self._message_bytes_max = 0
        self._work: _Work | None = None
        self._controls_at_s = 0.0
        self._unanswered = False
        self._is_deaf = False

    # As a session's sink.

    def close(self, disconnect: Disconnect) -> None:
        frame = close_frame(disconnect.code, disconnect.reason)
        self._part(lambda: self.send(frame))

    # As a transport's protocol.

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        rest: Rest | None,
        head: bytes = b"",
    ) -> None:
        super().begin(transport, connections, rest, head)
        assert rest is not None
        self._message_bytes_max = rest.message_bytes_max
        if rest.parser is None:
            if rest.data:
                self.data_received(rest.data)
            return
        self._inbound = Inbound(rest.parser, rest.fragments, is_text=rest.is_text)
        for message in rest.messages:
            if message is None:
                self._hear(Heard.BINARY, None)
            else:
                self._hear(Heard.TEXT, message)
        self._rest()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._inbound is None:
            if is_pong(data):
                self._hear(Heard.PONG, None)
                return
            self._inbound = Inbound.fresh(self._message_bytes_max)
        for heard, what in self._inbound.feed(data):
            self._hear(heard, what)
            if self._is_deaf:
                break
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_deaf = True
        self._rest()
        if self._work is not None:
            self._work.task.cancel()
        # The two hold each other.
        del self.session
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close with 1012. Readers the drain reached are gone by then."""
        self._is_deaf = True
        if self._parting is None:
            self.send(close_frame(SERVICE_RESTART, ""))
        self.release().close()

    # What came.

    def _hear(self, heard: Heard, what: Any) -> None:
        match heard:
            case Heard.TEXT:
                self._take(what)
            case Heard.BINARY:
                self.session.end(PROTOCOL)
            case Heard.PING:
                self._answer_ping()
            case Heard.PONG:
                if self._admit_control():
                    self._unanswered = False
            case Heard.CLOSE:
                self._answer_close()
            case Heard.FAULT:
                self._fail(PROTOCOL, *what)

    def _rest(self) -> None:
        """Let go of the parser where nothing is lost with it."""
        inbound = self._inbound
        if inbound is not None and (self._is_deaf or inbound.is_idle):
            inbound.forget()
            self._inbound = None

    def _take(self, text: str) -> None:
        command = self.session.receive(text, monotonic())
        if command is None:
            return
        if self._work is None:
            self._work = _Work(self._carry_out())
            self.transport.pause_reading()
        self._work.commands.append(command)

    async def _carry_out(self) -> None:
        work, session = self._work, self.session
        assert work is not None
        try:
            while work.commands:
                command = work.commands.popleft()
                await self._commands.carry_out(command, session, self._listener)
        except Exception:
            _logger.exception("a command failed")
            session.end(RESYNC)
        finally:
            self._work = None
            self.transport.resume_reading()

    def _answer_ping(self) -> None:
        assert self._inbound is not None
        if self._admit_control():
            pong = self._inbound.reply()
            if self.transport.get_write_buffer_size() <= PONGS_BUFFERED_MAX:
                self.send(pong)

    def _answer_close(self) -> None:
        assert self._inbound is not None
        answer = self._inbound.reply()
        self._is_deaf = True
        if self._parting is not None:
            # It is the answer.
            self.release().close()
            return

        def then() -> None:
            self.send(answer)
            self.release().close()

        self._part(then)
        # Nobody has ended the session, so it may still have something to say.
        self.discard_writes()

    def _admit_control(self) -> bool:
        now_s = monotonic()
        at_s = max(self._controls_at_s, now_s)
        if at_s - now_s > 1 - 1 / CONTROLS_PER_S_MAX:
            self._fail(AHEAD_OF_RATE, AHEAD_OF_RATE.code, AHEAD_OF_RATE.reason)
            return False
        self._controls_at_s = at_s + 1 / CONTROLS_PER_S_MAX
        return True

    # Endings.

    def _is_given_up(self) -> bool:
        if self._unanswered and self._work is None:
            self._fail(SILENT, SILENT.code, SILENT.reason)
            return True
        self._unanswered = True
        return False

    def _fail(self, disconnect: Disconnect, code: int, reason: str) -> None:
        """
        Close with `code`, and let go of the peer within `LINGER_S`.

        The peer may go on sending meanwhile, into the void.
        """
        self._is_deaf = True
        session = self.session
        if session.ended is not None or self.transport.is_closing():
            return
        session.stop(disconnect)
        self.send(close_frame(code, reason))
        transport = self.release()
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()
        loop = asyncio.get_running_loop()
        self._parting = loop.call_later(LINGER_S, transport.abort)


class _Work:
    """Commands in their order, and the task that carries them out."""

    __slots__ = ("commands", "task")

    def __init__(self, carrying_out: Any) -> None:
        self.commands: deque[Command] = deque()
        self.task: asyncio.Task[None] = asyncio.create_task(carrying_out)

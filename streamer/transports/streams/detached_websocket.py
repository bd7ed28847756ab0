"""
A WebSocket that has left ASGI.

Closes the connection of a peer that is silent, sends too many control frames, or
violates the protocol. Knows the session, and `Commands`, which executes the client's
commands. Knows nothing of the content of messages.

Frames are handled as they arrive. A command waits for the store, so there is a task
while commands are executed, and reading is paused meanwhile: only commands of one read
can queue, and the session limits their rate.
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
from ...errors import PROTOCOL, RATE_EXCEEDED, RESYNC, SILENT, Disconnect
from ...service.streams.admission import Connection
from ..server.refusal import LINGER_S
from ..server.websocket_input import CONTROLS_PER_S_MAX, PONGS_BUFFERED_MAX, UnreadInput
from .commands import Commands
from .detached import BatchWriter, Detached
from .framing import PING_FRAME, close_frame, text_frame, text_frames
from .inbound import InboundEvent, InboundParser, is_pong

__all__ = [
    "DetachedWebSocket",
    "websocket_batch_writer",
]

SERVICE_RESTART: Final = 1012

_PING: Final = WebSocketCodec().ping()

_logger = logging.getLogger(__name__)


def websocket_batch_writer() -> BatchWriter:
    """Return what frames events for all WebSockets; a ping event gets a ping frame."""

    def wrap(event: bytes) -> bytes:
        frame = text_frame(event)
        return frame + PING_FRAME if event == _PING else frame

    return BatchWriter(wrap, text_frames)


class DetachedWebSocket(Detached):
    """
    One WebSocket, from the handshake to the close.

    Args:
        connection: As for `Detached`.
        batch_writer: As `websocket_batch_writer` returns it.
        commands: Executes the client's commands.

    """

    PROBE = _PING

    __slots__ = (
        "_awaits_pong",
        "_command_queue",
        "_commands",
        "_controls_at_s",
        "_ignores_input",
        "_message_bytes_max",
        "_parser",
        "session",
    )

    session: Session
    """The session whose sink this is; to be set before `begin`."""

    def __init__(
        self, connection: Connection, batch_writer: BatchWriter, commands: Commands
    ) -> None:
        super().__init__(connection, batch_writer)
        self._commands = commands
        self._parser: InboundParser | None = None
        self._message_bytes_max = 0
        self._command_queue: _CommandQueue | None = None
        self._controls_at_s = 0.0
        self._awaits_pong = False
        self._ignores_input = False

    # As a session's sink.

    def close(self, disconnect: Disconnect) -> None:
        frame = close_frame(disconnect.code, disconnect.reason)
        self._finish_with(lambda: self.send(frame))

    # As a transport's protocol.

    def begin(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        unread: UnreadInput | None,
        head: bytes = b"",
    ) -> None:
        super().begin(transport, connections, unread, head)
        assert unread is not None
        self._message_bytes_max = unread.message_bytes_max
        if unread.parser is None:
            if unread.data:
                self.data_received(unread.data)
            return
        self._parser = InboundParser(
            unread.parser, unread.fragments, is_text=unread.is_text
        )
        for message in unread.messages:
            if message is None:
                self._on_event(InboundEvent.BINARY, None)
            else:
                self._on_event(InboundEvent.TEXT, message)
        self._drop_idle_parser()

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        if self._parser is None:
            if is_pong(data):
                self._on_event(InboundEvent.PONG, None)
                return
            self._parser = InboundParser.create(self._message_bytes_max)
        for event, value in self._parser.feed(data):
            self._on_event(event, value)
            if self._ignores_input:
                break
        self._drop_idle_parser()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ignores_input = True
        self._drop_idle_parser()
        if self._command_queue is not None:
            self._command_queue.task.cancel()
        # The session and this stream refer to each other.
        del self.session
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close at once with 1012. The drain has closed its readers before."""
        self._ignores_input = True
        if self._close_timer is None:
            self.send(close_frame(SERVICE_RESTART, ""))
        self.release().close()

    # Input.

    def _on_event(self, event: InboundEvent, value: Any) -> None:
        match event:
            case InboundEvent.TEXT:
                self._on_text(value)
            case InboundEvent.BINARY:
                self.session.end(PROTOCOL)
            case InboundEvent.PING:
                self._reply_to_ping()
            case InboundEvent.PONG:
                if self._allow_control_frame():
                    self._awaits_pong = False
                    self.session.heard_at_s = monotonic()
            case InboundEvent.CLOSE:
                self._reply_to_close()
            case InboundEvent.ERROR:
                self._fail(PROTOCOL, *value)

    def _drop_idle_parser(self) -> None:
        """Drop the parser if it holds no incomplete frame or message."""
        inbound = self._parser
        if inbound is not None and (self._ignores_input or inbound.is_idle):
            inbound.close()
            self._parser = None

    def _on_text(self, text: str) -> None:
        command = self.session.receive(text, monotonic())
        if command is None:
            return
        if self._command_queue is None:
            self._command_queue = _CommandQueue(self._run_commands())
            self.transport.pause_reading()
        self._command_queue.commands.append(command)

    async def _run_commands(self) -> None:
        queue, session = self._command_queue, self.session
        assert queue is not None
        try:
            while queue.commands:
                command = queue.commands.popleft()
                await self._commands.execute(command, session, self._connection)
        except Exception:
            _logger.exception("a command failed")
            session.end(RESYNC)
        finally:
            self._command_queue = None
            self.transport.resume_reading()

    def _reply_to_ping(self) -> None:
        assert self._parser is not None
        if self._allow_control_frame():
            pong = self._parser.reply()
            if self.transport.get_write_buffer_size() <= PONGS_BUFFERED_MAX:
                self.send(pong)

    def _reply_to_close(self) -> None:
        assert self._parser is not None
        reply = self._parser.reply()
        self._ignores_input = True
        if self._close_timer is not None:
            # This is the reply to our close frame.
            self.release().close()
            return

        def last_step() -> None:
            self.send(reply)
            self.release().close()

        self._finish_with(last_step)
        # The session has not ended and may still write.
        self.discard_writes()

    def _allow_control_frame(self) -> bool:
        now_s = monotonic()
        at_s = max(self._controls_at_s, now_s)
        if at_s - now_s > 1 - 1 / CONTROLS_PER_S_MAX:
            self._fail(RATE_EXCEEDED, RATE_EXCEEDED.code, RATE_EXCEEDED.reason)
            return False
        self._controls_at_s = at_s + 1 / CONTROLS_PER_S_MAX
        return True

    # Endings.

    def _close_if_silent(self) -> bool:
        if self._awaits_pong and self._command_queue is None:
            self._fail(SILENT, SILENT.code, SILENT.reason)
            return True
        self._awaits_pong = True
        return False

    def _fail(self, disconnect: Disconnect, code: int, reason: str) -> None:
        """
        Close with `code`, and abort the connection after `LINGER_S`.

        What the peer sends meanwhile is discarded.
        """
        self._ignores_input = True
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
        self._close_timer = loop.call_later(LINGER_S, transport.abort)


class _CommandQueue:
    """Commands in the order of arrival, and the task that executes them."""

    __slots__ = ("commands", "task")

    def __init__(self, coroutine: Any) -> None:
        self.commands: deque[Command] = deque()
        self.task: asyncio.Task[None] = asyncio.create_task(coroutine)

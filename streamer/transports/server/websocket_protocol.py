"""
A WebSocket within ASGI, with limits.

Closes the connection of a peer that is silent or sends too many control frames, and
bounds what one client can make the server hold: fragments, pings, and pongs that the
client does not read. Knows uvicorn's `WebSocketsSansIOProtocol`, which parses frames,
sends pings and passes messages to the app. Knows nothing of the content of messages;
the session limits their rate.

However a connection ends, the app receives one ``websocket.disconnect``, and what it
sends afterwards raises `ClientDisconnected`, an `OSError`.
"""

from __future__ import annotations

import asyncio
import logging
import math

from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)
from websockets.frames import CloseCode, Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from ...errors import RATE_EXCEEDED, SILENT
from .handle import (
    WRITE_BUFFER_HIGH_BYTES,
    WRITE_BUFFER_LOW_BYTES,
    Detachable,
    Successor,
)
from .refusal import LINGER_S
from .websocket_input import (
    CONTROLS_PER_S_MAX,
    FRAGMENTS_MAX,
    PONGS_BUFFERED_MAX,
    UnreadInput,
)

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger(__name__)


class WebSocketProtocol(WebSocketsSansIOProtocol, Detachable):
    """One WebSocket after its handshake; uvicorn's settings hold its limits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(
            WRITE_BUFFER_HIGH_BYTES, WRITE_BUFFER_LOW_BYTES
        )
        self._control_count = 0
        self._control_since_s = -math.inf

    def continue_from_handshake(
        self, transport: asyncio.Transport, early_data: bytes
    ) -> None:
        """
        Go on after a handshake; `early_data` was received during it.

        The app is already running: the protocol of the handshake called it.
        """
        self.connection_made(transport)
        self.conn = ServerProtocol(
            state=State.OPEN, max_size=self.config.ws_max_size, logger=self.logger
        )
        self.handshake_initiated = self.handshake_complete = True
        transport.resume_reading()
        self.start_keepalive()
        if early_data:
            self.data_received(early_data)

    def data_received(self, data: bytes) -> None:
        if not self.disconnected:
            super().data_received(data)

    # The handover.

    def hand_over(self, successor: Successor) -> None:
        self.stop_keepalive()
        self.disconnected = True
        self.writable.set()
        # uvicorn closes the connection when the app returns, unless a timer is set.
        self.close_timer = self.loop.call_later(0, _noop)
        self.connections.discard(self)
        transport = self.transport
        transport.set_protocol(successor)
        if self.read_paused:
            transport.resume_reading()
        successor.begin(transport, self.connections, self._unread_input())

    def _unread_input(self) -> UnreadInput:
        messages: list[str | None] = []
        while not self.queue.empty():
            message = self.queue.get_nowait()
            if message["type"] == "websocket.receive":
                messages.append(message.get("text"))
        return UnreadInput(
            messages,
            self.frames,
            self.curr_msg_data_type == "text",
            self.conn,
            self.config.ws_max_size,
        )

    def shutdown(self) -> None:
        """Close at once with 1012. The drain has closed its readers before."""
        if self.transport.is_closing():
            # uvicorn would send a second close frame, which raises an exception.
            return
        super().shutdown()

    # Messages.

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        # uvicorn detects invalid UTF-8 too, but logs each with a traceback: a client
        # could fill the disk.
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self._fail(CloseCode.INVALID_DATA, "invalid UTF-8")
        else:
            super().send_receive_event_to_app()

    # Control frames.

    def handle_ping(self) -> None:
        if not self._allow_control_frame():
            return
        if self.transport.get_write_buffer_size() > PONGS_BUFFERED_MAX:
            self.conn.data_to_send()
        else:
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._allow_control_frame():
            super().handle_pong(event)

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        self.pending_ping_payload = None
        self._fail(SILENT.code, SILENT.reason)

    def handle_parser_exception(self) -> None:
        close = self.conn.close_sent
        assert close is not None, "websockets fails the connection first"
        self._end(close.code, close.reason)

    def _allow_control_frame(self) -> bool:
        at_s = self.loop.time()
        if at_s - self._control_since_s >= 1:
            self._control_since_s = at_s
            self._control_count = 0
        self._control_count += 1
        if self._control_count > CONTROLS_PER_S_MAX:
            self._fail(RATE_EXCEEDED.code, RATE_EXCEEDED.reason)
            return False
        return True

    # Endings.

    def _fail(self, code: int, reason: str) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.fail(code, reason)
            self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        """
        Send the pending close frame, and abort the connection after `LINGER_S`.

        What the peer sends meanwhile is discarded. Closing a socket with unread bytes
        resets the connection, and the peer would not see the close code.
        """
        logger.debug("closing %s with %d (%s)", self.client, code, reason)
        self.stop_keepalive()
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": code, "reason": reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        # From here on, what the app sends raises `ClientDisconnected`.
        self.disconnected = True
        self.writable.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)


def _noop() -> None:
    pass


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True

"""
A WebSocket that goes on by ASGI: what ends it, and what a client may make us do.

Decides the close code when the peer is silent or floods, and bounds what one client
can pile up below the app: fragments, pings, pongs that it does not read. Knows
uvicorn's `WebSocketsSansIOProtocol`, which frames, pings and calls the app. Knows
nothing of the messages inside; their rate is the session's business.

However a connection ends, the app receives one ``websocket.disconnect`` first, and
what it sends afterwards raises `ClientDisconnected`, an `OSError`.
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

from ...errors import AHEAD_OF_RATE, SILENT
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
    """One WebSocket behind its handshake; its limits come with uvicorn's settings."""

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
        Go on behind a handshake; `early_data` is what has come since then.

        Nobody calls the app from here: whoever has written the handshake does.
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

    # Letting go.

    def hand_over(self, successor: Successor) -> None:
        self.stop_keepalive()
        self.disconnected = True
        self.writable.set()
        # uvicorn closes what the app leaves behind, unless a time is set for that.
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
        """Close at once with 1012. Readers the drain reached are gone by then."""
        if self.transport.is_closing():
            # uvicorn would send a second close frame, which raises.
            return
        super().shutdown()

    # Messages.

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        # uvicorn finds invalid UTF-8 too, and writes an error with a traceback into the
        # log for each: a way to fill a disk.
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
        assert close is not None, "websockets fails the connection before it says so"
        self._end(close.code, close.reason)

    def _allow_control_frame(self) -> bool:
        at_s = self.loop.time()
        if at_s - self._control_since_s >= 1:
            self._control_since_s = at_s
            self._control_count = 0
        self._control_count += 1
        if self._control_count > CONTROLS_PER_S_MAX:
            self._fail(AHEAD_OF_RATE.code, AHEAD_OF_RATE.reason)
            return False
        return True

    # Endings.

    def _fail(self, code: int, reason: str) -> None:
        if not self.close_sent and not self.transport.is_closing():
            self.conn.fail(code, reason)
            self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        """
        Send the close frame that is ready and let go of the peer within `LINGER_S`.

        The peer may go on sending meanwhile, into the void: closing a socket with
        unread bytes in it resets it, and the peer would not see the code.
        """
        logger.debug("%s is closed with %d (%s)", self.client, code, reason)
        self.stop_keepalive()
        self.queue.put_nowait(
            {"type": "websocket.disconnect", "code": code, "reason": reason}
        )
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        # What the app sends from here on goes to a client that is gone.
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

"""
A server that does what it is told: accept, refuse, say, stay silent, drop.

Reads requests from plain TCP connections and hands them over, those for a stream as
`attempts`, all others as `requests`. Whoever takes one decides what happens to it.
Knows HTTP, WebSocket and Server-Sent Events, and nothing of what is a right answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from .listener import Listener

__all__ = ["Exchange", "Server", "Stream"]

HEAD_BYTES_MAX: Final = 64 * 1024
TICKET_PATH: Final = "/v1/tickets"
STREAM_PATH: Final = "/v1/stream"
CURSOR_NAMES: Final = ("lasteventid", "last_event_id", "last-event-id")

# A driver may run in a page of another origin.
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Allow-Methods": "*",
    "Access-Control-Expose-Headers": "*",
}


class Server:
    """
    Listens on a port of the loopback interface.

    Args:
        scale: Real seconds per second of the protocol, for what EventSource waits.

    """

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.attempts: asyncio.Queue[Exchange] = asyncio.Queue()
        """Requests for a stream, in the order of their arrival."""
        self.requests: asyncio.Queue[Exchange] = asyncio.Queue()
        """All other requests, without those for tickets."""
        self.url = ""
        self._tickets: dict[str, str] = {}
        self._listener = Listener(self._serve, limit_bytes=HEAD_BYTES_MAX)

    async def start(self) -> None:
        await self._listener.open()
        self.url = f"http://127.0.0.1:{self._listener.port}"

    async def stop(self) -> None:
        """Stop listening, and drop all connections."""
        await self._listener.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # The client has gone, or this was no HTTP.
        finally:
            writer.transport.abort()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Hand over one request; return whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        exchange = Exchange(self, head, reader, writer)
        await exchange.read_body()
        if exchange.method == "OPTIONS":
            exchange.respond(204)
        elif exchange.path.endswith(TICKET_PATH) and exchange.token is not None:
            ticket = f"tk_{len(self._tickets) + 1}"
            self._tickets[ticket] = exchange.token
            exchange.respond(200, {"ticket": ticket, "expires_in_s": 60})
        elif exchange.path.endswith(STREAM_PATH):
            self.attempts.put_nowait(exchange)
        else:
            self.requests.put_nowait(exchange)
        await exchange.over.wait()
        return exchange.keeps_alive

    def put_back(self, exchange: Exchange) -> None:
        """Make an attempt the next one again."""
        later = []
        while not self.attempts.empty():
            later.append(self.attempts.get_nowait())
        for attempt in (exchange, *later):
            self.attempts.put_nowait(attempt)

    def token_of(self, ticket: str) -> str | None:
        """Return the token with which a ticket was requested."""
        return self._tickets.get(ticket)


class Exchange:
    """One request, and the means to answer it or not."""

    def __init__(
        self,
        server: Server,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.arrived_s = time.monotonic()
        line, *fields = head.decode("latin-1").split("\r\n")
        self.method, target, _ = line.split(" ", 2)
        split = urllib.parse.urlsplit(target)
        self.path = urllib.parse.unquote(split.path)
        self.query = urllib.parse.parse_qs(split.query, keep_blank_values=True)
        self.headers: dict[str, str] = {}
        for field in fields:
            name, separator, value = field.partition(":")
            if separator:
                self.headers[name.strip().lower()] = value.strip()
        self.body = b""
        self.over = asyncio.Event()
        self.keeps_alive = False
        self.head = head
        self.server = server
        self.reader = reader
        self.writer = writer

    @property
    def is_websocket(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def token(self) -> str | None:
        """The credential in the headers, or that of the ticket in the URL."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return token
        if own := self.headers.get("x-auth-token"):
            return own
        ticket = self.query.get("ticket", [""])[0]
        return self.server.token_of(ticket)

    @property
    def cursor(self) -> str | None:
        """Where the stream is to begin, by the precedence of section 10."""
        if (header := self.headers.get("last-event-id")) is not None:
            return header
        names = {name.lower(): values[0] for name, values in self.query.items()}
        for name in (*CURSOR_NAMES, "cursor"):
            if name in names:
                return names[name]
        return None

    def json(self) -> Any:
        """Return the body as JSON, None without one."""
        return json.loads(self.body) if self.body else None

    async def read_body(self) -> None:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                self.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        elif length := int(self.headers.get("content-length", "0")):
            self.body = await self.reader.readexactly(length)

    def respond(
        self, status: int, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer; `body` is text, or a value for JSON."""
        kind = "text/html" if isinstance(body, str) else "application/json"
        content = body.encode() if isinstance(body, str) else b""
        if body is not None and not isinstance(body, str):
            content = json.dumps(body).encode()
        fields = {"Content-Type": kind, **_CORS, **(headers or {})}
        fields["Content-Length"] = str(len(content))
        self.keeps_alive = not self.is_websocket
        self._write(_head(status, fields) + content)
        self.over.set()

    def drop(self) -> None:
        """Cut the connection: the client gets a reset."""
        self.writer.transport.abort()
        self.over.set()

    async def accept(self) -> Stream:
        """
        Open the stream that was asked for.

        Raises:
            ValueError: The handshake of the WebSocket is wrong.
        """
        stream: Stream
        if self.is_websocket:
            stream = WebSocketStream(self)
        else:
            stream = EventStream(self)
        return stream

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.write(data)


class Stream:
    """One open stream, of either transport."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        """What the client says: objects, or the text of what is none."""
        self.gone = asyncio.Event()
        """Set when the client has closed the connection."""

    def say(self, message: dict[str, Any]) -> None:
        """Send a message of section 6."""
        raise NotImplementedError

    def raw(self, text: str) -> None:
        """Send what need not be a message: a text message, or bytes of a response."""
        raise NotImplementedError

    def end(self, code: int, reason: str) -> None:
        """End the stream as the transport does it."""
        raise NotImplementedError

    def freeze(self) -> None:
        """From now on neither read nor answer, as a dead line."""
        raise NotImplementedError

    def drop(self) -> None:
        """Cut the connection."""
        self.exchange.drop()


class WebSocketStream(Stream):
    """A WebSocket. Answers ping frames and close frames by itself."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._protocol = ServerProtocol(max_size=None)
        self._protocol.receive_data(exchange.head)
        events = self._protocol.events_received()
        if not events or not isinstance(events[0], HandshakeRequest):
            raise ValueError("the handshake cannot be read")
        response = self._protocol.accept(events[0])
        self._protocol.send_response(response)
        self._flush()
        if response.status_code != 101:
            exchange.over.set()
            raise ValueError(f"the handshake is wrong: {response.body!r}")
        self._text = b""
        self._reading = asyncio.create_task(self._read())

    def say(self, message: dict[str, Any]) -> None:
        self.raw(json.dumps(message))

    def raw(self, text: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text.encode())
            self._flush()

    def fragments(self, parts: list[str]) -> None:
        """Send one message in several frames, with a ping frame in between."""
        *first, last = parts
        for number, part in enumerate(first):
            if number == 0:
                self._protocol.send_text(part.encode(), fin=False)
            else:
                self._protocol.send_continuation(part.encode(), fin=False)
            self._protocol.send_ping(b"between")
        self._protocol.send_continuation(last.encode(), fin=True)
        self._flush()

    def binary(self, data: bytes) -> None:
        """Send a binary message, which the protocol does not have."""
        self._protocol.send_binary(data)
        self._flush()

    def end(self, code: int, reason: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()

    def freeze(self) -> None:
        self._reading.cancel()

    async def _read(self) -> None:
        try:
            while data := await self.exchange.reader.read(2**16):
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    assert isinstance(event, Frame)
                    self._take(event)
                self._flush()
        except (OSError, ProtocolError):
            pass
        self.gone.set()
        self.exchange.over.set()

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._text += frame.data
            if frame.fin:
                text, self._text = self._text, b""
                try:
                    self.received.put_nowait(json.loads(text))
                except ValueError:
                    self.received.put_nowait(text.decode("utf-8", "replace"))
        elif frame.opcode is Opcode.BINARY:
            self.received.put_nowait("a binary message")

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.exchange._write(data)
            elif self.exchange.writer.can_write_eof():
                # The end of what the protocol has to say.
                with contextlib.suppress(OSError):
                    self.exchange.writer.write_eof()


class EventStream(Stream):
    """Server-Sent Events, in a chunked response."""

    RETRY_S: Final = 1.0

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        fields = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store, no-transform",
            "Transfer-Encoding": "chunked",
            "X-Accel-Buffering": "no",
            **_CORS,
        }
        exchange._write(_head(200, fields))
        self._is_first = True
        self._reading = asyncio.create_task(self._wait_for_end())

    def say(self, message: dict[str, Any]) -> None:
        self.raw(self.block(message))

    def block(self, message: dict[str, Any], line_end: str = "\n") -> str:
        """Return the block that means the same as a message of a WebSocket."""
        content = {k: v for k, v in message.items() if k != "type"}
        lines = []
        if self._is_first or message["type"] == "bye":
            delay_ms = message.get("delay_ms") or self.RETRY_S * 1000
            lines.append(f"retry: {int(delay_ms * self.exchange.server.scale)}")
            self._is_first = False
        if cursor := message.get("cursor"):
            lines.append(f"id: {cursor}")
        if message["type"] == "notification":
            content = message["notification"]
        elif message["type"] == "withdrawn":
            # The other events have it in their data as well.
            content.pop("cursor", None)
            lines.append("event: withdrawn")
        else:
            lines.append(f"event: {message['type']}")
        lines += [f"data: {json.dumps(content, ensure_ascii=False)}", "", ""]
        return line_end.join(lines)

    def raw(self, text: str) -> None:
        self.bytes(text.encode())

    def bytes(self, data: bytes) -> None:
        """Send bytes of the body, as one chunk."""
        if data:
            self.exchange._write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self, code: int, reason: str) -> None:
        # There are no close codes: the response ends, and `bye` has said the rest.
        self.exchange._write(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            self.exchange.writer.write_eof()

    def freeze(self) -> None:
        self._reading.cancel()

    async def _wait_for_end(self) -> None:
        with contextlib.suppress(OSError):
            while await self.exchange.reader.read(2**16):
                pass
        self.gone.set()
        self.exchange.over.set()


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    phrase = HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

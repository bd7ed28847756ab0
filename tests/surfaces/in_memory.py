"""
The server's own HTTP protocol, without sockets: bytes in, bytes out.

Requests go through the protocol class of `streamer serve`, over a transport in memory,
either with the operations that are answered beneath ASGI or with everything through
ASGI.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal, cast

import httptools
import httpx2
import uvicorn
from uvicorn.server import ServerState

from streamer.app import App
from streamer.config import Config
from streamer.transports.server.http_protocol import http_protocol

__all__ = ["WAYS", "Connection", "HttpTransport", "Way"]

GUARD_S = 60

Way = Literal["asgi", "direct"]
WAYS: tuple[Way, ...] = ("asgi", "direct")


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self, client: tuple[str, int]) -> None:
        super().__init__(
            {"peername": client, "sockname": ("127.0.0.1", 80), "socket": None}
        )
        self.written = bytearray()
        self.lost = asyncio.Event()
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.lost.is_set():
            self.written += data

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.lost.is_set()

    def close(self) -> None:
        self.lost.set()

    def abort(self) -> None:
        self.lost.set()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return False


class Connection:
    """
    A connection to an app.

    `direct_count` is the number of requests that were answered beneath ASGI.
    """

    def __init__(
        self,
        app: App,
        config: Config,
        way: Way,
        *,
        client: tuple[str, int] = ("127.0.0.1", 123),
    ) -> None:
        self.direct_count = 0
        made = http_protocol(config, direct=self if way == "direct" else None)
        uvicorn_config = uvicorn.Config(
            app.asgi,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
        )
        uvicorn_config.load()
        self._direct = app.direct
        self.transport = _Transport(client)
        self.state = ServerState()
        self.protocol = made(uvicorn_config, self.state, {})
        self.protocol.connection_made(self.transport)

    def find(self, scope: Any, target: bytes) -> Any:
        """As `DirectApp.find`, counted."""
        answer = self._direct.find(scope, target)
        self.direct_count += answer is not None
        return answer

    async def send(self, *packets: bytes) -> bytes:
        """Send a request in packets; return the response, which has to be complete."""
        self.transport.written.clear()
        for packet in packets:
            self.protocol.data_received(packet)
            await asyncio.sleep(0)
        async with asyncio.timeout(GUARD_S):
            # uvicorn has no event for it.
            while not self._is_answered():  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
        return bytes(self.transport.written)

    async def disconnect(self) -> None:
        """Lose the connection, and wait until its tasks have ended."""
        self.protocol.connection_lost(ConnectionResetError())
        if self.state.tasks:
            await asyncio.wait(self.state.tasks)

    def _is_answered(self) -> bool:
        if self.transport.lost.is_set():
            return not self.state.tasks
        cycle = self.protocol.cycle
        return cycle is not None and cycle.response_complete and not self.state.tasks


class HttpTransport(httpx2.AsyncBaseTransport):
    """Sends the requests of a client through `Connection`, one connection for each."""

    def __init__(self, app: App, config: Config, way: Way) -> None:
        self._app = app
        self._config = config
        self._way = way

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = b"".join([part async for part in cast(Any, request.stream)])
        lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
        lines += [
            b"%b: %b" % field
            for field in request.headers.raw
            if field[0].lower() != b"transfer-encoding"
        ]
        if body and "content-length" not in request.headers:
            lines.append(b"Content-Length: %d" % len(body))
        connection = Connection(self._app, self._config, self._way)
        sent = b"\r\n".join([*lines, b"", body])
        try:
            received = await connection.send(sent)
        finally:
            await connection.disconnect()
        return _response(received, method=request.method)


def _response(received: bytes, *, method: str) -> httpx2.Response:
    parsed = _Parsed()
    parser = httptools.HttpResponseParser(parsed)
    parser.feed_data(received)
    if method != "HEAD" and not parsed.is_complete:
        raise httpx2.RemoteProtocolError("the response is not complete")
    return httpx2.Response(
        parser.get_status_code(), headers=parsed.headers, content=parsed.body
    )


class _Parsed:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() != b"transfer-encoding":
            self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True

"""
A real host on a free port, raw connections to it, and an app that records its calls.

These tests run on uvloop, as the server does. Those of the host run on asyncio's own
event loop, so both are covered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
import pytest
import uvloop
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer.components import Components
from streamer.config import Config
from streamer.core.access.rights import Caller
from streamer.errors import Error, LimitReached
from streamer.model import App, Log, Notification, Player, encode_fragment
from streamer.server import Host
from streamer.service.access.authenticator import Credentials
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.transports.server.direct import Answer, Respond
from streamer.transports.server.handle import Handle, find_handle
from streamer.transports.streams.sse import SseStream
from streamer.transports.streams.websocket import WebSocketStream

GUARD_S = 60


def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    return {"uvloop": uvloop.new_event_loop}


class RawClient:
    """A raw connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def pause_reading(self) -> None:
        # uvloop's transports read and write, and are no subclass of asyncio's.
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(GUARD_S):
            return await self.reader.readexactly(count)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(GUARD_S):
            return await self.reader.readuntil(end)

    async def read_to_end(self) -> bytes:
        """Return all bytes until the connection is closed or reset."""
        received = bytearray()
        async with asyncio.timeout(GUARD_S):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65_536):
                    received += data
        return bytes(received)

    async def status(self) -> int:
        """Return the status of the next response, without reading its body."""
        head = await self.read_until(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def body(self) -> bytes:
        """Return the body of the next response, which has a Content-Length."""
        head = await self.read_until(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        return await self.read(int(length.split(b"\r\n")[0]))

    async def exchange(self, request: bytes) -> bytes:
        self.send(request)
        return await self.read_to_end()


class Served:
    """A running host."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self._clients: list[RawClient] = []

    async def connect(self) -> RawClient:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def close_clients(self) -> None:
        for client in self._clients:
            client.writer.transport.abort()


class RecordingApp:
    """
    An app for the tests of protocols.

    ``/`` reads the body and responds with its length, ``/stream`` is an event stream
    that ends with its client, ``/held`` responds when `release` is set, ``/early``
    responds without reading. A WebSocket echoes. `endings` gets the end of each call.
    """

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.endings: asyncio.Queue[Any] = asyncio.Queue()
        self.release = asyncio.Event()

    @property
    def handle(self) -> Handle:
        handle = find_handle(self.scopes[-1])
        assert handle is not None
        return handle

    async def ending(self) -> Any:
        async with asyncio.timeout(GUARD_S):
            return await self.endings.get()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await self._echo(receive, send)
        elif scope["path"] == "/stream":
            await self._stream(receive, send)
        elif scope["path"] == "/held":
            await self.release.wait()
            await self._respond(send, b"released")
            self.endings.put_nowait("responded")
        elif scope["path"] == "/early":
            await self._respond(send, b"early")
        else:
            await self._respond_with_length(receive, send)

    async def _respond_with_length(self, receive: Receive, send: Send) -> None:
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.endings.put_nowait("disconnect")
                return
            length += len(message["body"])
            more = message["more_body"]
        await self._respond(send, b"%d bytes" % length)

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.endings.put_nowait("disconnect")

    async def _respond(self, send: Send, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _echo(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
        self.endings.put_nowait((message["code"], message.get("reason", "")))


class Direct:
    """Answers requests for an app beneath ASGI, except for ``/stream``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def find(self, scope: Scope, target: bytes) -> Answer | None:
        path, _, query = target.partition(b"?")
        if path == b"/stream":
            return None
        scope.update(path=path.decode(), raw_path=path, query_string=query)
        return self._answer

    async def _answer(self, scope: Scope, receive: Receive, respond: Respond) -> None:
        begun: Message = {}

        async def send(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message
            else:
                assert not message.get("more_body", False)
                await respond(begun["status"], begun["headers"], message["body"])

        await self._app(scope, receive, send)


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
def is_direct() -> bool:
    """Whether requests are answered beneath ASGI."""
    return False


@pytest.fixture
async def serve(is_direct: bool) -> AsyncIterator[Serve]:
    """Give a function that starts a host for an app, with settings by name."""
    running: list[tuple[Served, asyncio.Task[None]]] = []

    async def start(app: ASGIApp, **settings: Any) -> Served:
        # Many tests read until the server closes the connection.
        config = msgspec.structs.replace(Config(port=0, keep_alive_s=1), **settings)

        async def drain() -> None:
            pass

        direct = Direct(app) if is_direct else None
        host = Host(app, config, drain=drain, direct=direct)
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(host.run(started=url.set_result))
        async with asyncio.timeout(GUARD_S):
            either: set[asyncio.Future[Any]] = {task, url}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            first, *_ = (await url).split()
            port = 0 if first.startswith("unix:") else int(first.rpartition(":")[2])
            served = Served(host, port)
        running.append((served, task))
        return served

    yield start
    for served, task in running:
        served.host.stop()
        served.host.stop()
        await served.close_clients()
        async with asyncio.timeout(GUARD_S):
            await task


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


# Streams.


class StreamClient(RawClient):
    """A connection with a stream, after the head of its response."""

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self.read(2)
        if size == 126:
            size = int.from_bytes(await self.read(2))
        elif size == 127:
            size = int.from_bytes(await self.read(8))
        return first & 0x0F, await self.read(size)

    async def message(self) -> Any:
        """Return the next message, skipping ping frames."""
        while (received := await self.frame())[0] != 1:
            assert received[0] == 9, received
        return json.loads(received[1])

    async def close_code(self) -> int:
        """Return the code of the next close frame, skipping everything else."""
        while (received := await self.frame())[0] != 8:
            pass
        return int.from_bytes(received[1][:2]) if received[1] else 1005

    async def event(self) -> bytes:
        """Return the next event, out of one chunk or several."""
        while b"\n\n" not in self._events:
            size = int(await self.read_until(b"\r\n"), 16)
            self._events += await self.read(size)
            assert await self.read(2) == b"\r\n"
        event, _, self._events = self._events.partition(b"\n\n")
        return event

    _events = b""


class World:
    """Both stream endpoints on a host with a real store; any credential is accepted."""

    def __init__(self, components: Components) -> None:
        self.components = components
        self.admission = components.admission
        self.acquired_leases = components.admission._leases
        self.hub = components.admission._catch_up.hub
        self.log = Log(App("app"), Player("player"))
        self.permissions = frozenset({"notification:player:self:*"})
        self.expires_in_s: int | None = None
        self.served: Served | None = None
        self._inbox = Inbox(components.redis)
        streams = msgspec.structs.replace(components.streams, authenticator=self)
        self._sse = SseStream(streams, refuse=_refuse)
        self._websocket = WebSocketStream(streams, refuse=_refuse)

    async def caller(self, credentials: Credentials) -> Caller:
        ends_s = None
        if self.expires_in_s is not None:
            ends_s = int(time.time()) + self.expires_in_s
        return Caller(self.log.app, self.log.player, self.permissions, ends_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._websocket if scope["type"] == "websocket" else self._sse
        await stream(scope, receive, send)

    @property
    def connections(self) -> set[Any]:
        assert self.served is not None
        return self.served.host._server.server_state.connections

    @property
    def tasks(self) -> set[Any]:
        assert self.served is not None
        return self.served.host._server.server_state.tasks

    async def publish(self, title: str) -> None:
        fragment = encode_fragment(Notification(title=title))
        await self._inbox.append(self.log, [fragment])

    async def leases(self) -> int:
        count: int = await self.components.redis.call("HLEN", keys_of().lease(self.log))
        return count

    async def until_leases(self, count: int) -> None:
        async with asyncio.timeout(GUARD_S):
            while await self.leases() != count:  # noqa: ASYNC110  # the store has no event for it
                await asyncio.sleep(0.005)

    def request(
        self,
        *,
        upgrade: bool = False,
        credential: bool = True,
        method: str = "GET",
        version: str = "1.1",
        **query: str,
    ) -> bytes:
        lines = [f"{method} /?{urlencode(query)} HTTP/{version}", "Host: here"]
        if credential:
            lines.append("Authorization: Bearer player")
        if upgrade:
            lines += [
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(
        self, *, receive_buffer: int = 0, tls: ssl.SSLContext | None = None
    ) -> StreamClient:
        assert self.served is not None
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self.served.port))
        client = StreamClient(
            *await asyncio.open_connection(
                sock=sock, ssl=tls, server_hostname="localhost" if tls else None
            )
        )
        self.served._clients.append(client)
        return client

    async def websocket(
        self,
        *,
        credential: bool = True,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        **query: Any,
    ) -> StreamClient:
        client = await self.connect(receive_buffer=receive_buffer, tls=tls)
        client.send(self.request(upgrade=True, credential=credential, **query))
        assert await client.status() == 101
        return client

    async def event_stream(
        self,
        *,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        **query: Any,
    ) -> StreamClient:
        client = await self.connect(receive_buffer=receive_buffer, tls=tls)
        client.send(self.request(**query))
        assert await client.status() == 200
        return client


def _refuse(error: Error) -> Response:
    status = 409 if isinstance(error, LimitReached) else 403
    return Response(str(error), status)


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(store_url: str, serve: Serve) -> AsyncIterator[MakeWorld]:
    """Give a function that serves streams, with settings by name."""
    running: list[tuple[World, asyncio.Task[None]]] = []

    async def make(**settings: Any) -> World:
        config = Config(message_bytes_max=1_000, drain_s=0)
        config = msgspec.structs.replace(config, **settings)
        world = World(Components(config, store_url))
        task = asyncio.create_task(world.admission.run())
        running.append((world, task))
        async with asyncio.timeout(GUARD_S):
            while not world.admission._catch_up.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        settings = {"message_bytes_max": config.message_bytes_max}
        world.served = await serve(world, **settings)
        return world

    yield make
    for world, task in running:
        assert world.served is not None
        await world.served.close_clients()
        async with asyncio.timeout(GUARD_S):
            while world.admission.open:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        await world.components.redis.close()

"""
A real host on a free port, raw connections to it, and an app that says what it saw.

These tests run on uvloop, as the server does; those of the host run on asyncio's own
loop, so both are covered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.config import Config
from streamer.server import Host
from streamer.transports.handle import Handle, find_handle

GUARD_S = 10


def pytest_asyncio_loop_factories() -> Mapping[
    str, Callable[[], asyncio.AbstractEventLoop]
]:
    return {"uvloop": uvloop.new_event_loop}


class Wire:
    """One raw connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(GUARD_S):
            return await self.reader.readexactly(count)

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(GUARD_S):
            return await self.reader.readuntil(end)

    async def read_to_end(self) -> bytes:
        """Return all that comes; a reset ends it as an orderly close does."""
        received = bytearray()
        async with asyncio.timeout(GUARD_S):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65_536):
                    received += data
        return bytes(received)

    async def status(self) -> int:
        """Return the status of the next answer and leave its body unread."""
        head = await self.read_until(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def ask(self, request: bytes) -> bytes:
        self.send(request)
        return await self.read_to_end()


class Served:
    """A running host."""

    def __init__(self, host: Host, port: int) -> None:
        self.host = host
        self.port = port
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self._wires.append(wire)
        return wire

    async def close_wires(self) -> None:
        for wire in self._wires:
            wire.writer.transport.abort()


class SeeingApp:
    """
    An app for the tests of protocols.

    ``/`` reads the body and answers with its length, ``/stream`` is an event stream
    that ends with its client, ``/held`` answers when `release` is set, ``/early``
    answers without reading. A WebSocket echoes; `endings` gets how each went.
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
            await self._answer(send, b"released")
            self.endings.put_nowait("answered")
        elif scope["path"] == "/early":
            await self._answer(send, b"early")
        else:
            await self._measure(receive, send)

    async def _measure(self, receive: Receive, send: Send) -> None:
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.endings.put_nowait("disconnect")
                return
            length += len(message["body"])
            more = message["more_body"]
        await self._answer(send, b"%d bytes" % length)

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.endings.put_nowait("disconnect")

    async def _answer(self, send: Send, body: bytes) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _echo(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": message["text"]})
        self.endings.put_nowait((message["code"], message.get("reason", "")))


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Give a function that starts a host for an app, with settings by name."""
    running: list[tuple[Served, asyncio.Task[None]]] = []

    async def start(app: ASGIApp, **settings: Any) -> Served:
        config = msgspec.structs.replace(Config(port=0), **settings)

        async def drain() -> None:
            pass

        host = Host(app, config, drain=drain)
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(host.run(started=url.set_result))
        async with asyncio.timeout(GUARD_S):
            either: set[asyncio.Future[Any]] = {task, url}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            served = Served(host, int((await url).rpartition(":")[2]))
        running.append((served, task))
        return served

    yield start
    for served, task in running:
        served.host.stop()
        served.host.stop()
        await served.close_wires()
        async with asyncio.timeout(GUARD_S):
            await task


@pytest.fixture
def app() -> SeeingApp:
    return SeeingApp()

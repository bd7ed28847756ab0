"""
Bytes that are written past a transport, and the descriptor after the connection.

`RawSocket` relies on uvloop: a transport closes its socket after `connection_lost` has
returned, never before, however the connection ends. These tests hold uvloop to that.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.errors import SLOW
from streamer.transports.server.handle import (
    _NO_DESCRIPTOR,
    NULL_TRANSPORT,
    RawSocket,
)
from streamer.transports.streams.detached import BatchWriter, EventStream
from streamer.transports.streams.framing import unframed

from ..conftest import MakeWorld
from ..streams.test_detached import Absent

MOST = 1 << 30


class Watched(EventStream):
    """A stream that inspects its socket in `connection_lost`."""

    __slots__ = ("__dict__",)

    def __init__(self) -> None:
        super().__init__(Absent(), BatchWriter(unframed))
        self.begun, self.lost = asyncio.Event(), asyncio.Event()
        self.was_open = False

    def begin(self, transport: asyncio.Transport, *handover: Any) -> None:
        super().begin(transport, *handover)
        self.number = transport.get_extra_info("socket").fileno()
        self.socket = os.fstat(self.number)
        self.begun.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.was_open = os.path.samestat(self.socket, os.fstat(self.number))
        super().connection_lost(exc)
        self.lost.set()

    def write_past(self, event: bytes) -> None:
        assert self.batch_writer.write_all([self], event, MOST) == []

    def fill(self) -> int:
        """Write until the transport buffers; return how many bytes were written."""
        count = 0
        while self._descriptor >= 0:
            self.write_past(b"x" * 65_536)
            count += 65_536
        return count


class Handover(asyncio.Protocol):
    """The server's protocol until the stream takes over the connection."""

    def __init__(self, stream: Watched) -> None:
        self._stream = stream

    def connection_made(  # type: ignore[override]  # never a pipe
        self, transport: asyncio.Transport
    ) -> None:
        transport.set_protocol(self._stream)
        self._stream.begin(transport, set(), None)


Connected = tuple[Watched, socket.socket]
Connect = Callable[..., Awaitable[Connected]]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """Give a function that connects a client, which reads nothing by itself."""
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    clients: list[socket.socket] = []

    async def connect(*, unix: bool = False) -> Connected:
        stream = Watched()
        accept = functools.partial(Handover, stream)
        if unix:
            path = str(tmp_path / f"socket{len(servers)}")
            server = await loop.create_unix_server(accept, path)
        else:
            server = await loop.create_server(accept, "127.0.0.1", 0)
        servers.append(server)
        client = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        clients.append(client)
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await stream.begun.wait()
        return stream, client

    yield connect
    for client in clients:
        client.close()
    for server in servers:
        server.close()
        await server.wait_closed()


async def read(client: socket.socket, count: int = MOST) -> bytes:
    """Read `count` bytes, or to the end."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count and (data := await loop.sock_recv(client, 1 << 20)):
        received += data
    return bytes(received)


async def by_the_client(stream: Watched, client: socket.socket) -> None:
    client.close()


async def by_a_reset(stream: Watched, client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


async def by_a_write_that_fails(stream: Watched, client: socket.socket) -> None:
    await by_a_reset(stream, client)
    for _ in range(3):
        stream.write_past(b"discarded")


async def by_half(stream: Watched, client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


async def by_half_while_something_waits(stream: Watched, client: socket.socket) -> None:
    stream.fill()
    client.shutdown(socket.SHUT_WR)
    await read(client)


async def by_us(stream: Watched, client: socket.socket) -> None:
    stream.shutdown()


async def by_us_while_something_waits(stream: Watched, client: socket.socket) -> None:
    stream.fill()
    stream.shutdown()
    await read(client)


async def at_once(stream: Watched, client: socket.socket) -> None:
    stream.fill()
    stream.abort(SLOW)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize(
    "end",
    [
        by_the_client,
        by_a_reset,
        by_a_write_that_fails,
        by_half,
        by_half_while_something_waits,
        by_us,
        by_us_while_something_waits,
        at_once,
    ],
)
async def test_a_socket_is_open_until_connection_lost_returns(
    connect: Connect, end: Callable[..., Awaitable[None]], *, unix: bool
) -> None:
    stream, client = await connect(unix=unix)
    assert stream._descriptor == stream.number

    await end(stream, client)
    await stream.lost.wait()

    assert stream.was_open
    stream.write_past(b"lost")
    assert stream.write(b"lost", MOST)
    assert stream._descriptor == _NO_DESCRIPTOR


async def test_a_reused_descriptor_gets_no_bytes_of_the_lost_stream(
    connect: Connect,
) -> None:
    stream, client = await connect()
    out, into = os.pipe()
    os.set_blocking(out, False)
    client.close()
    await stream.lost.wait()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stream.number)
    os.dup2(into, stream.number)

    stream.write_past(b"of the lost stream")
    stream.write(b"of the lost stream", MOST)

    with pytest.raises(BlockingIOError):
        os.read(out, 1)
    for descriptor in (out, into, stream.number):
        os.close(descriptor)


async def test_bytes_past_the_transport_keep_their_order_with_the_others(
    connect: Connect,
) -> None:
    stream, client = await connect()
    sent = stream.fill()
    lines = [b"%09d\n" % number for number in range(2_000)]
    for line in lines[:500]:
        stream.write_past(line)
    assert stream._descriptor == _NO_DESCRIPTOR

    assert await read(client, sent + 5_000) == b"x" * sent + b"".join(lines[:500])
    # Once the buffer is empty the next write goes to the transport, later ones past it.
    for line in lines[500:]:
        stream.write_past(line)
    assert stream._descriptor == stream.number
    assert await read(client, 15_000) == b"".join(lines[500:])


async def test_nothing_is_written_past_other_transports(
    connect: Connect,
) -> None:
    stream, _ = await connect()

    class Other(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return stream.transport.get_extra_info(name)

    raw = RawSocket(NULL_TRANSPORT)
    raw.attach(stream.transport)
    assert raw._descriptor == stream.number
    raw.attach(Other())
    assert raw._descriptor == _NO_DESCRIPTOR


async def test_nothing_is_written_past_a_closed_stream(
    connect: Connect,
) -> None:
    stream, client = await connect()
    stream.close(SLOW)

    stream.write_past(b"too late")
    assert stream.write(b"too late", MOST)

    assert await read(client) == b"0\r\n\r\n"


async def test_streams_of_the_server_write_past_their_transports(
    make_world: MakeWorld,
) -> None:
    world = await make_world()
    websocket, event_stream = await world.websocket(), await world.event_stream()
    await websocket.message()
    await event_stream.event()

    assert all(stream._descriptor >= 0 for stream in world.connections)
    assert len(world.connections) == 2

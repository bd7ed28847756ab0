"""An event stream of a server on a port, read as it arrives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["EventStream"]

GUARD_S = 60
RECEIVE_BUFFER_BYTES = 4_096
"""Small, so that the server soon notices a client that does not read."""


class EventStream(asyncio.Protocol):
    """
    One request for a stream, and what is answered.

    `text` is the body so far; `data` are the ``data`` lines of its whole events.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.text = ""
        self._unread = b""
        self._transport: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self._lost = asyncio.Event()

    @classmethod
    async def open(cls, port: int, path: str, headers: dict[str, str]) -> EventStream:
        """Send a request for a stream, whose response has not begun yet."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, stream = await loop.create_connection(cls, sock=sock)
        fields = {"Host": "here", "Connection": "close", **headers}
        lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        assert stream._transport is not None
        stream._transport.write("\r\n".join([*lines, "", ""]).encode())
        return stream

    @property
    def data(self) -> list[dict[str, Any]]:
        return [
            msgspec.json.decode(line.removeprefix("data: "))
            for block in self.text.split("\n\n")[:-1]
            for line in block.split("\n")
            if line.startswith("data: ")
        ]

    async def until(self, fact: Callable[[EventStream], object]) -> None:
        """Wait for a fact, or the end of the stream. The fact must hold then."""
        async with asyncio.timeout(GUARD_S):
            while not fact(self) and not self._lost.is_set():
                self._arrived.clear()
                await self._arrived.wait()
        assert fact(self), (self.status, self.text)

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the data of the first `count` events as soon as they have arrived."""
        await self.until(lambda stream: len(stream.data) >= count)
        return self.data[:count]

    async def end(self) -> None:
        """Wait until the server ends it."""
        async with asyncio.timeout(GUARD_S):
            await self._lost.wait()

    def pause(self) -> None:
        """Read nothing from here on."""
        assert self._transport is not None
        self._transport.pause_reading()

    async def close(self) -> None:
        """Disconnect."""
        assert self._transport is not None
        self._transport.abort()
        await self.end()

    # As a protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self.status:
            self._read_head()
        if self.status:
            self._read_body()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._arrived.set()

    def _read_head(self) -> None:
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if end:
            status, *fields = head.decode().split("\r\n")
            self.headers = dict(field.split(": ", 1) for field in fields)
            self.status = int(status.split(" ")[1])
            self._unread = rest

    def _read_body(self) -> None:
        if self.headers.get("transfer-encoding") != "chunked":
            self.text += self._unread.decode()
            self._unread = b""
            return
        while True:
            size, end, rest = self._unread.partition(b"\r\n")
            if not end or len(rest) < int(size, 16) + 2:
                return
            self.text += rest[: int(size, 16)].decode()
            self._unread = rest[int(size, 16) + 2 :]

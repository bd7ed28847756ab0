"""A proxy that loses connections."""

from __future__ import annotations

import asyncio
import contextlib

from streamer_conformance.listener import Listener


class LosingProxy:
    """Passes bytes on, and drops clients without closing to the server."""

    def __init__(self, server_url: str) -> None:
        self._server_port = int(server_url.rpartition(":")[2])
        self._listener = Listener(self._serve)
        self._clients: list[asyncio.StreamWriter] = []
        self._servers: list[asyncio.StreamWriter] = []
        self._lose_at: bytes | None = None
        self._lost = asyncio.Event()

    async def listen(self) -> str:
        """Begin; return its URL."""
        await self._listener.open()
        return f"http://127.0.0.1:{self._listener.port}"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._clients.append(writer)
        self._servers.append(upstream[1])
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass_on(reader, upstream[1]))
            both.create_task(self._pass_on(upstream[0], writer))

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                if self._lose_at is not None and self._lose_at in data:
                    self._lose_at = None
                    self.lose_clients()
                    self._lost.set()
                sink.write(data)

    @property
    def connection_count(self) -> int:
        """The number of connections so far."""
        return len(self._clients)

    def lose_clients(self) -> None:
        for writer in self._clients:
            writer.transport.abort()

    def lose_clients_instead_of(self, text: bytes) -> asyncio.Event:
        """Drop the clients when the server sends `text`; return what is set then."""
        self._lose_at, self._lost = text, asyncio.Event()
        return self._lost

    async def close(self) -> None:
        await self._listener.close()
        for writer in self._servers:
            writer.transport.abort()
        await asyncio.sleep(0)  # They are closed in the next iteration.

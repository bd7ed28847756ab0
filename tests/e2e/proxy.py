"""
A TCP proxy that fails as networks do: it resets, stalls, delays, refuses and drops.

It runs in the event loop of the test. `tamper` receives every chunk and may change it,
drop it (empty bytes) or reset the connection instead (None).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from streamer_conformance.listener import Listener

Tamper = Callable[["ProxiedConnection", bytes, bool], bytes | None]
"""Called with the connection, a chunk, and whether it goes to the target."""


class ProxiedConnection:
    """The connection of a client, and the one to the target."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.seen: dict[str, int] = {}
        """What a `tamper` remembers about this connection."""

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


class TcpProxy:
    """A proxy for a port of this machine."""

    def __init__(self, target_port: int, *, port: int = 0) -> None:
        self.target_port = target_port
        self._listener = Listener(self._serve)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.connections: set[ProxiedConnection] = set()
        self.port = port
        self.delay_s = 0.0
        self.refusing = False
        self.tamper: Tamper = lambda pair, chunk, up: chunk
        self.accepted = 0

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> TcpProxy:
        await self._listener.open(self.port)
        self.port = self._listener.port
        return self

    async def close(self) -> None:
        await self._listener.close()

    def cut(self) -> None:
        """Reset every connection, but accept new ones."""
        for pair in tuple(self.connections):
            pair.cut()

    def go_away(self) -> None:
        """Reset every connection and accept none until `come_back`."""
        self.refusing = True
        self.cut()

    def come_back(self) -> None:
        self.refusing = False

    def lead_to(self, port: int) -> None:
        """Connect to another port from now on; connections that are open stay."""
        self.target_port = port

    def swallow(self) -> None:
        """Keep connections open and drop what they carry; new ones are unaffected."""
        lost = set(self.connections)
        self.tamper = lambda pair, chunk, up: b"" if pair in lost else chunk

    def stall(self) -> None:
        """Keep connections open but pass nothing on, until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        if self.refusing:
            writer.transport.abort()
            return
        pair = ProxiedConnection(writer)
        try:
            target_reader, target_writer = await asyncio.open_connection(
                "127.0.0.1", self.target_port
            )
            pair = ProxiedConnection(writer, target_writer)
            self.connections.add(pair)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(pair, reader, target_writer, up=True))
                tasks.create_task(self._pump(pair, target_reader, writer, up=False))
        finally:
            pair.cut()
            self.connections.discard(pair)

    async def _pump(
        self,
        pair: ProxiedConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        up: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._flowing.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                passed = self.tamper(pair, data, up)
                if passed is None:
                    break
                writer.write(passed)
                await writer.drain()
            else:
                # One side has finished; the other may still send.
                if writer.can_write_eof():
                    writer.write_eof()
                return
        pair.cut()

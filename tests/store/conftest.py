"""All available servers, and a proxy that behaves as networks do."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.timetable import Timetable
from streamer.store.server.embedded import Embedded
from streamer_conformance.listener import Listener

from ..clock import Clock
from ..e2e.processes import free_port


@pytest.fixture(autouse=True)
async def guard() -> AsyncIterator[None]:
    """Fail a test that hangs, while the loop can still report where."""
    async with asyncio.timeout(100):
        yield


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


@pytest.fixture
def timetable(redis: RedisConnection, clock: Clock) -> Timetable:
    return Timetable(redis, LogSettings(clock_us=clock))


@pytest.fixture(scope="session")
def debian_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of the system's redis-server."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not on PATH")
    loop = asyncio.new_event_loop()
    embedded = loop.run_until_complete(
        Embedded.start(tmp_path_factory.mktemp("redis"), binary=Path(found))
    )
    yield embedded.url
    loop.run_until_complete(embedded.stop())
    loop.close()


@pytest.fixture(params=["chosen", "redis-server"])
def any_store(request: pytest.FixtureRequest) -> str:
    """Return the URL of each available server in turn."""
    name = "session_store" if request.param == "chosen" else "debian_store"
    url: str = request.getfixturevalue(name)
    return url


class Proxy:
    """
    Stands in front of a server and spoils what passes.

    Every way of spoiling is an attribute that counts for all connections from the
    moment it is set.
    """

    def __init__(self, target: str) -> None:
        self.target = target.removeprefix("unix://")
        self.delay_s: Callable[[], float] = lambda: 0.0
        """How long each chunk of replies is held."""
        self.drop: Callable[[bytes], bool] = lambda reply: False
        """Whether a chunk of replies is dropped."""
        self.cut: Callable[[bytes, bytes], bool] = lambda asked, reply: False
        """Whether to cut the connection instead of forwarding the replies."""
        self.flowing = asyncio.Event()
        """While it is cleared, replies are held."""
        self.flowing.set()
        self.cuts = 0
        self.url = ""
        self._listener = Listener(self._serve, limit_bytes=2**24)
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        # While it is closed, no connection gets this port.
        await self._listener.open(self._listener.port or free_port())
        self.url = f"redis://127.0.0.1:{self._listener.port}"

    async def close(self) -> None:
        """Cut all connections and refuse new ones until `open`."""
        await self._listener.close()
        self.flowing.set()

    def cut_all(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream = None
        try:
            there, upstream = await asyncio.open_unix_connection(self.target)
            self._writers |= {writer, upstream}
            asked = [b""]
            async with asyncio.TaskGroup() as both:
                both.create_task(self._ask(reader, upstream, asked))
                both.create_task(self._reply(there, writer, asked))
        except* OSError:
            pass
        finally:
            for one in (writer, upstream):
                if one is not None:
                    one.transport.abort()
                    self._writers.discard(one)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        asked: list[bytes],
    ) -> None:
        while data := await reader.read(2**20):
            asked[0] = data
            upstream.write(data)
            await upstream.drain()
        raise ConnectionResetError

    async def _reply(
        self,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: list[bytes],
    ) -> None:
        while data := await there.read(2**20):
            await asyncio.sleep(self.delay_s())
            await self.flowing.wait()
            if self.cut(asked[0], data):
                self.cuts += 1
                raise ConnectionResetError
            if not self.drop(data):
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError


@pytest.fixture
async def proxy(store_url: str) -> AsyncIterator[Proxy]:
    assert urlsplit(store_url).scheme == "unix"
    proxy = Proxy(store_url)
    await proxy.open()
    yield proxy
    await proxy.close()

"""
The servers of these tests: a whole server in this process, on a real store, with the
credentials of one app; or one that follows a script.
"""

from __future__ import annotations

import asyncio
import contextlib
import time as unix
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from websockets.asyncio.server import Server, serve

from streamer.app import App, build
from streamer.config import Config
from streamer.core.access.tokens import mint
from streamer.model import App as AppName
from streamer.model import Log, Player
from streamer.server import Host
from streamer.store.access.apps import AppRecord, Apps
from streamer.store.client.connection import RedisConnection
from streamer_client import Client

from ..conftest import empty
from .scripted import FakeClock, ScriptedServer

GUARD_S = 60


class Running:
    """A server that can be stopped and started again on the same port."""

    def __init__(self, store_url: str, settings: dict[str, Any]) -> None:
        self.url = ""
        self.key = ""
        self._record: AppRecord | None = None
        self._store_url = store_url
        self._config = msgspec.structs.replace(Config(port=0, drain_s=0), **settings)
        self._host: Host | None = None
        self._app: App | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        """Create the app and its backend key."""
        redis = RedisConnection(self._store_url)
        apps = Apps(redis)
        self._record = await apps.create(AppName("game"))
        self.key = await apps.add_key(AppName("game"))
        await redis.close()

    def sibling(self, store_url: str) -> Running:
        """Return another node of the same app, not started yet."""
        other = Running(store_url, {})
        other._config = msgspec.structs.replace(self._config, port=0)
        other._record, other.key = self._record, self.key
        return other

    def token(
        self, player: str, *, ttl_s: int = 3600, topics: tuple[str, ...] = ()
    ) -> str:
        assert self._record is not None
        return mint(
            self._record,
            Player(player),
            ttl_s=ttl_s,
            now_s=int(unix.time()),
            topics=topics,
        )

    def is_read(self, player: str) -> bool:
        """Whether a stream or a poll of a player is open."""
        assert self._app is not None
        hub = self._app._components.catch_up.hub
        return bool(hub.readers(Log(AppName("game"), Player(player))))

    async def start(self) -> None:
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._app = build(self._config, self._store_url)
        self._host = Host(
            self._app.asgi, self._config, drain=self._app.drain, direct=self._app.direct
        )
        self._tasks = [
            asyncio.create_task(self._app.run()),
            asyncio.create_task(self._host.run(started=started.set_result)),
        ]
        async with asyncio.timeout(GUARD_S):
            self.url = (await started).rstrip("/")
            await self._app.ready()
        port = int(self.url.rpartition(":")[2])
        self._config = msgspec.structs.replace(self._config, port=port)

    async def stop(self) -> None:
        """Drain and stop, as SIGTERM does."""
        if self._host is None:
            return
        self._host.stop()
        running, serving = self._tasks
        async with asyncio.timeout(GUARD_S):
            await serving
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        self._host = None


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve_streams(store_url: str) -> AsyncIterator[Serve]:
    """Give a function that starts a server, with settings by name."""
    servers: list[Running] = []

    async def start(**settings: Any) -> Running:
        running = Running(store_url, settings)
        servers.append(running)
        await running.prepare()
        await running.start()
        return running

    yield start
    for running in servers:
        await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_server(session_store: str) -> AsyncIterator[Running]:
    """Give one server for all tests of a module, each with players of its own."""
    # A process that takes tests over from another may come back to a module, and finds
    # the app that it created the first time.
    empty(session_store)
    running = Running(session_store, {})
    await running.prepare()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    listener: Server
    async with serve(
        scripted.play,
        "127.0.0.1",
        0,
        process_request=scripted.refuse,
        ping_interval=None,
        close_timeout=1,
    ) as listener:
        scripted.port = next(iter(listener.sockets)).getsockname()[1]
        yield scripted


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def client(server: ScriptedServer, time: FakeClock) -> AsyncIterator[Client]:
    async with Client(server.url, token="t0", clock=time.clock) as client:
        yield client

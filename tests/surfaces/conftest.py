"""
A whole server in this process, and callers of two apps, ``demo`` and ``other``.

Requests reach it as ASGI, without a socket; for streams it listens on a port, since
they go on below ASGI. Its background parts run, so that what is published arrives.
`Any` in the tests stands for these classes, which cannot be imported from here.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest

from streamer.app import App, build
from streamer.config import Config
from streamer.core.access.tokens import AppRecord, mint
from streamer.model import App as AppName
from streamer.model import Log, Player
from streamer.openapi import document
from streamer.server import Host
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import lease_key

from .conformance import STREAM, Conformance
from .event_stream import EventStream

GUARD_S = 5
FACT_POLL_S = 0.002


class Mint:
    """Makes tokens: ``mint(player, *permissions, app=…, ttl_s=…, topics=…)``."""

    def __init__(self, records: dict[str, AppRecord]) -> None:
        self.records = records

    def __call__(
        self,
        player: str,
        *permissions: str,
        app: str = "demo",
        ttl_s: int = 3_600,
        at_s: int | None = None,
        topics: tuple[str, ...] = (),
    ) -> str:
        return mint(
            self.records[app],
            Player(player),
            permissions=permissions,
            topics=topics,
            ttl_s=ttl_s,
            now_s=int(time.time()) if at_s is None else at_s,
        )

    def bearer(self, player: str, *permissions: str, **kind: Any) -> dict[str, str]:
        """Return the headers of a caller."""
        return {"Authorization": f"Bearer {self(player, *permissions, **kind)}"}


class Server:
    """A running server: the app, and a client of it."""

    def __init__(
        self,
        app: App,
        client: httpx2.AsyncClient,
        redis: RedisConnection,
        config: Config,
    ) -> None:
        self.app = app
        self.client = client
        self.redis = redis
        self._config = config
        self._host: Host | None = None
        self._serving: asyncio.Task[None] | None = None
        self._port = 0

    async def listen(self) -> int:
        """Serve the app on a port, too, as `streamer serve` does; return the port."""
        if self._host is None:
            started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            config = msgspec.structs.replace(self._config, host="127.0.0.1", port=0)
            self._host = Host(self.app.asgi, config, drain=self.app.drain)
            serving = self._host.run(started=started.set_result)
            self._serving = asyncio.create_task(serving)
            async with asyncio.timeout(GUARD_S):
                self._port = int((await started).rpartition(":")[2])
        return self._port

    async def get(
        self, path: str, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Send a GET request to the port: what is answered before a stream begins."""
        url = f"http://127.0.0.1:{await self.listen()}{path}"
        hooks = self.client.event_hooks
        async with httpx2.AsyncClient(event_hooks=hooks) as client:
            return await client.get(url, headers=headers)

    async def close(self) -> None:
        """Close what `listen` has opened, if anything, without a drain."""
        if self._host is not None and self._serving is not None:
            self._host.stop()
            self._host.stop()
            await self._serving
        await self.client.aclose()

    async def leases(self, player: str, app: str = "demo") -> int:
        """Return how many listeners the store counts for a player."""
        key = lease_key(Log(AppName(app), Player(player)))
        count: int = await self.redis.call("HLEN", key)
        return count

    def readers(self, player: str, app: str = "demo") -> int:
        """Return how many listeners of a player this server has."""
        hub = self.app.admission._catch_up.hub
        return len(hub.readers(Log(AppName(app), Player(player))))


Start = Callable[..., Awaitable[Server]]
Until = Callable[[Callable[[], Any]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Give a function that returns as soon as what it is given says true."""

    async def until(fact: Callable[[], Any]) -> None:
        async with asyncio.timeout(GUARD_S):
            while True:
                holds = fact()
                if inspect.isawaitable(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(FACT_POLL_S)

    return until


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[RedisConnection]:
    """Give a way to the store that is not the server's."""
    redis = RedisConnection(store_url, name="test")
    yield redis
    await redis.close()


@pytest.fixture(name="mint")
async def make_mint(redis: RedisConnection) -> Mint:
    apps = Apps(redis)
    names = ("demo", "other")
    return Mint({name: await apps.create(AppName(name)) for name in names})


@pytest.fixture
def add_key(redis: RedisConnection, mint: Mint) -> Callable[..., Awaitable[str]]:
    """Give a function that makes a backend key: ``add_key(*scopes, app="demo")``."""

    async def add_key(*scopes: str, app: str = "demo") -> str:
        return await Apps(redis).add_key(AppName(app), scopes)

    return add_key


@pytest.fixture
async def backend_key(add_key: Callable[..., Awaitable[str]]) -> str:
    """Return a key of the app ``demo`` with the default scopes."""
    return await add_key()


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    return Conformance(document())


@pytest.fixture
async def start(
    store_url: str, redis: RedisConnection, mint: Mint, conformance: Conformance
) -> AsyncIterator[Start]:
    """Give a function that starts a server, with settings by name."""
    running: list[tuple[Server, asyncio.Task[None]]] = []

    async def conforms(response: httpx2.Response) -> None:
        """Hold every answer that a test gets against the contract."""
        if not response.headers.get("content-type", "").startswith(STREAM):
            await response.aread()
            request = response.request
            conformance.check(
                request.method,
                request.url.raw_path.partition(b"?")[0].decode(),
                response.status_code,
                response.headers,
                response.content,
            )

    async def start(**settings: Any) -> Server:
        config = msgspec.structs.replace(Config(), **settings)
        app = build(config, store_url)
        task = asyncio.create_task(app.run())
        transport = httpx2.ASGITransport(app.asgi)
        client = httpx2.AsyncClient(
            transport=transport,
            base_url="http://here",
            event_hooks={"response": [conforms]},
        )
        server = Server(app, client, redis, config)
        running.append((server, task))
        async with asyncio.timeout(GUARD_S):
            await app.ready()
        return server

    yield start
    for server, task in running:
        await server.close()
        assert not task.done(), "a background part has died"
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def server(start: Start) -> Server:
    return await start()


@pytest.fixture
def app(server: Server) -> App:
    return server.app


@pytest.fixture
def client(server: Server) -> httpx2.AsyncClient:
    return server.client


@pytest.fixture
async def answered_client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that gets the answer to a request that fails, not the exception."""
    transport = httpx2.ASGITransport(server.app.asgi, raise_app_exceptions=False)
    base_url = "http://here"
    async with httpx2.AsyncClient(transport=transport, base_url=base_url) as client:
        yield client


OpenEvents = Callable[..., Awaitable[EventStream]]


@pytest.fixture
async def open_events(server: Server) -> AsyncIterator[OpenEvents]:
    """Give a function that opens an event stream: ``open_events(path, headers)``."""
    opened: list[EventStream] = []

    async def open_events(
        path: str, headers: dict[str, str], *, at: Server | None = None
    ) -> EventStream:
        port = await (at or server).listen()
        stream = await EventStream.open(port, path, headers)
        opened.append(stream)
        await stream.until(lambda s: s.data or s.status not in (0, 200))
        return stream

    yield open_events
    for stream in opened:
        await stream.close()

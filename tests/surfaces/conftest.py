"""
A whole server in this process, and callers of two apps, ``demo`` and ``other``.

Requests reach it as ASGI, without a socket; for streams it listens on a port, since
they go on below ASGI. Its background tasks run, so what is published arrives. `Any` in
the tests stands for these classes, which cannot be imported from here.

Building a server and waiting until it is ready takes longer than most tests. So the
tests of a module share one server, one event loop and one store; each test has two apps
of its own, named ``demo`` and ``other`` in code and uniquely in the store. Tests that
need other settings start a server themselves, with `start`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio

from streamer.app import App, build
from streamer.config import Config
from streamer.core.access.tokens import AppRecord, mint
from streamer.model import App as AppName
from streamer.model import Log, Player
from streamer.openapi import document
from streamer.server import Host
from streamer.service.tracing.spans import StartTracing
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of

from ..conftest import empty
from .conformance import STREAM, Conformance
from .event_stream import EventStream
from .in_memory import WAYS, HttpTransport, Way

GUARD_S = 60
FACT_POLL_S = 0.002
HERE = Path(__file__).parent

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a module of this folder in one event loop."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


BOTH_WAYS = {
    HERE / "native" / "test_publishing.py",
    HERE / "native" / "test_inboxes.py",
    HERE / "test_quotas.py",
}
"""Modules whose tests run over HTTP, too, with operations answered beneath ASGI."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path = Path(metafunc.module.__file__ or "")
    if "way" in metafunc.fixturenames and path in BOTH_WAYS:
        metafunc.parametrize("way", WAYS)


@pytest.fixture
def way() -> Way:
    """Return the way of a client's requests: as ASGI, without the server, or direct."""
    return "asgi"


class Mint:
    """
    Makes tokens: ``mint(player, *permissions, app=…, ttl_s=…, topics=…)``.

    `records` has the test's apps by the names that it uses for them, which are not
    those in the store; see `name`.
    """

    def __init__(self, records: dict[str, AppRecord]) -> None:
        self.records = records

    def name(self, app: str = "demo") -> AppName:
        """Return the name that an app has in the store."""
        return self.records[app].name

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
        """Return the headers with a token."""
        return {"Authorization": f"Bearer {self(player, *permissions, **kind)}"}


class Server:
    """A running server, with a client."""

    def __init__(
        self,
        app: App,
        client: httpx2.AsyncClient,
        redis: RedisConnection,
        mint: Mint,
        config: Config,
    ) -> None:
        self.app = app
        self.client = client
        self.redis = redis
        self._mint = mint
        self._config = config
        self._host: Host | None = None
        self._serving: asyncio.Task[None] | None = None
        self._port = 0

    async def listen(self) -> int:
        """Serve the app on a port, too, as `streamer serve` does; return the port."""
        if self._host is None:
            started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            config = msgspec.structs.replace(self._config, host="127.0.0.1", port=0)
            self._host = Host(
                self.app.asgi, config, drain=self.app.drain, direct=self.app.direct
            )
            serving = self._host.run(started=started.set_result)
            self._serving = asyncio.create_task(serving)
            async with asyncio.timeout(GUARD_S):
                self._port = int((await started).rpartition(":")[2])
        return self._port

    async def get(
        self, path: str, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Send a GET request to the port, for a response without a stream."""
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

    def log(self, player: str, app: str = "demo") -> Log:
        """Return a player's log."""
        return Log(self._mint.name(app), Player(player))

    async def leases(self, player: str, app: str = "demo") -> int:
        """Return the number of leases of a player in the store."""
        key = keys_of().lease(self.log(player, app))
        count: int = await self.redis.call("HLEN", key)
        return count

    def readers(self, player: str, app: str = "demo") -> int:
        """Return the number of readers of a player on this server."""
        hub = self.app.admission._catch_up.hub
        return len(hub.readers(self.log(player, app)))


Start = Callable[..., Awaitable[Server]]
Until = Callable[[Callable[[], Any]], Awaitable[None]]


AddKey = Callable[..., Awaitable[str]]


@pytest.fixture
def until() -> Until:
    """Return a function that waits for a fact."""

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


@pytest.fixture(scope="module")
def store_url(session_store: str) -> str:
    """Return the URL of a store that is empty when a module begins."""
    empty(session_store)
    return session_store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(store_url: str) -> AsyncIterator[RedisConnection]:
    """Yield a connection to the store that is not the server's."""
    redis = RedisConnection(store_url, name="test")
    yield redis
    await redis.close()


@pytest_asyncio.fixture(name="mint", loop_scope="module")
async def make_mint(redis: RedisConnection) -> Mint:
    apps, number = Apps(redis), next(_numbers)
    return Mint(
        {
            name: await apps.create(AppName(f"{name}-{number}"))
            for name in ("demo", "other")
        }
    )


@pytest.fixture
def add_key(redis: RedisConnection, mint: Mint) -> AddKey:
    """Return a function that makes a backend key: ``add_key(*scopes, app="demo")``."""

    async def add_key(*scopes: str, app: str = "demo") -> str:
        return await Apps(redis).add_key(mint.name(app), scopes)

    return add_key


@pytest_asyncio.fixture(loop_scope="module")
async def backend_key(add_key: Callable[..., Awaitable[str]]) -> str:
    """Return a key of the app ``demo`` with the default scopes."""
    return await add_key()


@pytest.fixture(scope="session")
def conformance() -> Conformance:
    return Conformance(document())


@asynccontextmanager
async def running(
    store_url: str, config: Config, start_tracing: StartTracing | None = None
) -> AsyncIterator[App]:
    """Run a server for the block, ready from its beginning."""
    app = build(config, store_url, start_tracing=start_tracing)
    task = asyncio.create_task(app.run())
    async with asyncio.timeout(GUARD_S):
        await app.ready()
    yield app
    assert not task.done(), "a background task has ended"
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def client_of(
    app: App, conformance: Conformance, way: Way = "asgi", *, raises: bool = True
) -> AsyncIterator[httpx2.AsyncClient]:
    """
    Yield a client for the block.

    With `raises` it raises exceptions of the app, unless it is direct.
    """
    transport: httpx2.AsyncBaseTransport = httpx2.ASGITransport(
        app.asgi, raise_app_exceptions=raises
    )
    if way == "direct":
        transport = HttpTransport(app, Config(), way)

    async def conforms(response: httpx2.Response) -> None:
        """Check every response that a test gets against the contract."""
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

    async with httpx2.AsyncClient(
        transport=transport,
        base_url="http://here",
        event_hooks={"response": [conforms]},
    ) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def start(
    store_url: str,
    redis: RedisConnection,
    mint: Mint,
    conformance: Conformance,
    way: Way,
) -> AsyncIterator[Start]:
    """Return a function that starts a server of the test's own, settings by name."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Server:
            config = msgspec.structs.replace(Config(), **settings)
            app = await stack.enter_async_context(running(store_url, config))
            client = await stack.enter_async_context(client_of(app, conformance, way))
            server = Server(app, client, redis, mint, config)
            stack.push_async_callback(server.close)
            return server

        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_app(store_url: str) -> AsyncIterator[App]:
    """Run the server of the module, with the settings of a new one."""
    async with running(store_url, Config()) as app:
        yield app


@pytest_asyncio.fixture(loop_scope="module")
async def server(
    shared_app: App,
    redis: RedisConnection,
    mint: Mint,
    conformance: Conformance,
    way: Way,
) -> AsyncIterator[Server]:
    """Yield the server of the module, with a client of the test's own."""
    async with client_of(shared_app, conformance, way) as client:
        server = Server(shared_app, client, redis, mint, Config())
        yield server
        await server.close()


@pytest.fixture
def app(server: Server) -> App:
    return server.app


@pytest.fixture
def client(server: Server) -> httpx2.AsyncClient:
    return server.client


@pytest_asyncio.fixture(loop_scope="module")
async def answered_client(
    server: Server, conformance: Conformance, way: Way
) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that gets the response to a failed request, not the exception."""
    async with client_of(server.app, conformance, way, raises=False) as client:
        yield client


OpenEvents = Callable[..., Awaitable[EventStream]]


@pytest_asyncio.fixture(loop_scope="module")
async def open_events(server: Server) -> AsyncIterator[OpenEvents]:
    """Return a function that opens an event stream: ``open_events(path, headers)``."""
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

"""
A whole server in this process, and callers of two apps, ``demo`` and ``other``.

Requests reach it as ASGI, without a socket. Its background parts run, so that
what is published arrives. `Any` in the tests stands for these classes, which cannot
be imported from here.
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
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import lease_key

from .conformance import STREAM, Conformance

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
        self, app: App, client: httpx2.AsyncClient, redis: RedisConnection
    ) -> None:
        self.app = app
        self.client = client
        self.redis = redis

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
        app = build(msgspec.structs.replace(Config(), **settings), store_url)
        task = asyncio.create_task(app.run())
        transport = httpx2.ASGITransport(app.asgi)
        client = httpx2.AsyncClient(
            transport=transport,
            base_url="http://here",
            event_hooks={"response": [conforms]},
        )
        server = Server(app, client, redis)
        running.append((server, task))
        async with asyncio.timeout(GUARD_S):
            await app.ready()
        return server

    yield start
    for server, task in running:
        await server.client.aclose()
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

"""
Running servers for tests that use them from outside, over their ports.

`server` is one process for all tests of a module; each test has players of its own.
`make_server`, `make_store` and `make_proxy` are for tests that break something.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from .processes import ServerProcess, StoreProcess
from .proxy import TcpProxy
from .readers import Api


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Yield a running server. No test may stop it or fill it up."""
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.discard()


@pytest.fixture
async def backend(server: ServerProcess) -> AsyncIterator[Api]:
    """Yield the REST API of `server` with a backend key."""
    async with Api(server.port, await server.key()) as api:
        yield api


@pytest.fixture
def player() -> str:
    """Return a player that no other test uses."""
    return f"player-{secrets.token_hex(4)}"


@pytest.fixture
async def token(server: ServerProcess, player: str) -> str:
    """Return the player's token for `server`."""
    return await server.token(player)


@pytest.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[Callable[..., ServerProcess]]:
    """Yield a function that makes a server with settings, without starting it."""
    made: list[ServerProcess] = []

    def make(*, redis: str = "", **settings: object) -> ServerProcess:
        server = ServerProcess(tmp_path / f"server{len(made)}", redis=redis, **settings)
        made.append(server)
        return server

    yield make
    # The loop goes on: a server that stops still speaks to its store, and the proxy
    # between the two may be one of this test.
    await asyncio.gather(*(asyncio.to_thread(server.discard) for server in made))


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[..., StoreProcess]]:
    """Yield a function that makes a store with options, without starting it."""
    made: list[StoreProcess] = []

    def make(*options: str, binary: Path | None = None) -> StoreProcess:
        folder = tmp_path / f"store{len(made)}"
        store = StoreProcess(folder, *options, binary=binary)
        made.append(store)
        return store

    yield make
    for store in made:
        store.discard()


@pytest.fixture
async def make_proxy() -> AsyncIterator[Callable[[int], Awaitable[TcpProxy]]]:
    """Yield a function that starts a proxy for a port."""
    made: list[TcpProxy] = []

    async def make(target_port: int) -> TcpProxy:
        proxy = await TcpProxy(target_port).start()
        made.append(proxy)
        return proxy

    yield make
    for proxy in made:
        await proxy.close()

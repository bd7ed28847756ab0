"""Stores as their hosts restrict them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.store.client.connection import RedisConnection
from streamer.store.server.server_binary import find_server

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess
from ..e2e.readers import Api, SseStream

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]

REDIS = shutil.which("redis-server")

RENAMED = ("CONFIG", "KEYS", "FLUSHALL", "FLUSHDB", "DEBUG", "SHUTDOWN", "BGREWRITEAOF")
"""What hosts take away by renaming it to nothing."""

DENIED = (
    *("-@admin", "-@dangerous", "-config", "-acl", "-module", "-debug"),
    *("-flushall", "-flushdb", "-keys", "-monitor", "-save", "-bgsave", "+info"),
)
"""What the default user of a hosted store may not."""

pytestmark = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed")


async def works(server: ServerProcess) -> None:
    """Check that it stores, announces and serves."""
    stream = await SseStream.open(server.port, await server.token("ann"))
    await stream.until("hello")
    async with Api(server.port, await server.key()) as backend:
        (id,) = await backend.published("ann", title="here")
        assert (await stream.until("notification")).id == id
        assert [one["id"] for one in await backend.inbox("ann")] == [id]
    stream.cut()


@pytest.mark.parametrize(
    "binary",
    [
        pytest.param(
            lambda: Path(REDIS or ""),
            marks=pytest.mark.stack("Redis", "an external store, with `appendfsync`"),
        ),
        pytest.param(
            find_server,
            marks=pytest.mark.stack("Valkey", "an external store, with `appendfsync`"),
        ),
    ],
    ids=["redis", "valkey"],
)
async def test_a_store_of_ones_own(
    make_server: MakeServer, make_store: MakeStore, binary: Callable[[], Path]
) -> None:
    store = await make_store(*DURABLE, binary=binary()).start()
    server = await make_server(redis=store.url).start()

    await works(server)


@pytest.mark.stack(
    "a managed store's ACL", "commands renamed to nothing, also `CONFIG`"
)
async def test_a_store_whose_commands_were_renamed(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    assert REDIS is not None
    options = [word for name in RENAMED for word in ("--rename-command", name, "")]
    store = await make_store(*DURABLE, *options, binary=Path(REDIS)).start()
    server = await make_server(redis=store.url).start()

    await works(server)

    # It says that it cannot know what the store keeps, and that is no reason to stop.
    assert '"level":"warning"' in server.logged
    assert "CONFIG" in server.logged


@pytest.mark.stack(
    "a managed store's ACL", "a user without `@admin` and `@dangerous`, but `INFO`"
)
async def test_a_user_of_the_store_without_dangerous_commands(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    assert REDIS is not None
    store = await make_store(*DURABLE, binary=Path(REDIS)).start()
    owner = RedisConnection(store.url)
    user = ("ACL", "SETUSER", "tenant", "on", ">secret", "~*", "&*", "+@all")
    await owner.call(*user, *DENIED)
    await owner.close()
    url = store.url.replace("//", "//tenant:secret@")
    server = await make_server(redis=url).start()

    await works(server)

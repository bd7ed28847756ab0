"""Servers on a store that Sentinels watch, while its primary is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamer.store.client.sentinel import address_at

from .processes import ServerProcess, eventually
from .readers import Api, following
from .sentinels import WatchedStore


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    store = WatchedStore(tmp_path / "store")
    try:
        yield await store.start()
    finally:
        store.discard()


@pytest.fixture
async def server(tmp_path: Path, watched: WatchedStore) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(tmp_path, redis=watched.url, durability="replicated")
    try:
        yield await server.start()
    finally:
        server.discard()


@pytest.mark.nightly
@pytest.mark.stack(
    "Sentinel (Valkey)",
    "the primary is killed, and a replica promoted",
    setting="a URL that names the Sentinels",
)
async def test_a_node_goes_on_when_the_primary_is_lost(
    server: ServerProcess, watched: WatchedStore
) -> None:
    result = server.run("key", "--app", "game", "--redis", watched.url)
    assert result.returncode == 1, "there is no app yet"
    result = server.run("app", "create", "game", "--redis", watched.url)
    assert result.returncode == 0, result.stderr
    result = server.run("key", "--app", "game", "--redis", watched.url)
    key = result.stdout.split()[-1]
    token = await _token(server, key)
    async with Api(server.port, key) as backend:
        async with following("websocket", server.port, token) as reader:
            ids = await backend.stored("alice", title="before")
            await watched.primary.kill()
            await _promoted(watched)
            # The new primary needs a replica that confirms: the former one, restarted.
            await watched.primary.start()
            ids += await backend.stored("alice", title="after")
            await reader.has(ids)
            assert reader.gaps == []
        inbox = [one["id"] for one in await backend.inbox("alice")]
    assert inbox == ids


async def _token(server: ServerProcess, key: str) -> str:
    async with Api(server.port, key) as backend:
        answer = await backend.http.post("/v1/tokens", json={"player": "alice"})
        return str(answer.json()["token"])


async def _promoted(watched: WatchedStore) -> None:
    """Wait until all Sentinels name the replica as the primary."""
    address = address_at(watched.url)

    async def named() -> bool:
        # Each call begins with another Sentinel.
        ports = {(await address.locate()).port for _ in watched.sentinels}
        return ports == {watched.replica.port}

    await eventually(named)

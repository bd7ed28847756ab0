"""A store whose data a version does not read: it says so, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.core.deployment import LEVEL

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess, eventually
from ..e2e.readers import Api

NEWER = [
    ('{"format":3,"id":7,"version":"1.4.0"}', "has store format 3"),
    (
        f'{{"format":2,"id":"x","level":{LEVEL + 1},"raised_by":"1.4.0"}}',
        f"has level {LEVEL + 1} of store format 2",
    ),
]


@pytest.mark.parametrize(("record", "told"), NEWER)
async def test_a_node_whose_store_becomes_newer_says_so_and_writes_nothing(
    record: str, told: str, tmp_path: Path
) -> None:
    store = StoreProcess(tmp_path / "store", *DURABLE)
    await store.start()
    node = ServerProcess(tmp_path, redis=store.url)
    try:
        await node.start()
        async with Api(node.port, await node.key()) as backend:
            await backend.stored("ann", title="before")
            own = await node.ask_store("GET", "streamer:deployment")
            await node.ask_store("SET", "streamer:deployment", record)
            await eventually(lambda: _is(node, 503))

            before = await _everything(node)
            refused = await backend.publish("ann", title="while")
            assert refused.status_code == 503, refused.text
            read = await backend.http.post(
                "/v1/players/ann/notifications/read", json={"all": True}
            )
            assert read.status_code == 503, read.text
            # Its own tasks go on: they try again more often than they look.
            looks = await _looks(node)

            async def looked_again() -> bool:
                return await _looks(node) >= looks + 3

            await eventually(looked_again)
            assert await _everything(node) == before
            assert told in node.logged
            doctor = node.run("doctor", "--redis", store.url)
            assert doctor.returncode == 1
            assert told in doctor.stdout
            assert "install streamer 1.4.0 or later" in doctor.stdout

            await node.ask_store("SET", "streamer:deployment", own.decode())
            await eventually(lambda: _is(node, 200))
            await backend.stored("ann", title="after")
            titles = [one["title"] for one in await backend.inbox("ann")]
            assert titles == ["before", "after"]
        assert "Traceback" not in node.logged
    finally:
        node.discard()
        store.discard()


async def _is(node: ServerProcess, status: int) -> bool:
    return await node.probe("/readyz") == status


async def _everything(node: ServerProcess) -> dict[bytes, bytes]:
    keys = sorted(await node.ask_store("KEYS", "*"))
    return {key: await node.ask_store("DUMP", key) for key in keys}


async def _looks(node: ServerProcess) -> int:
    """Return how often the record was read."""
    stats = (await node.ask_store("INFO", "commandstats")).decode()
    return int(stats.partition("cmdstat_get:calls=")[2].partition(",")[0])

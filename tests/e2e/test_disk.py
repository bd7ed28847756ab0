"""
The disk of the embedded store becomes full, or slow, and recovers.

docs/operations.md tells the same under "When the disk is full or slow".
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from ..faults.test_durability import slowed_disk
from .disks import mounted
from .processes import ServerProcess, eventually
from .readers import Api, following

TOKEN = "a-token-for-metrics"

pytestmark = pytest.mark.privileged


class SmallDisk:
    """A disk of 48 MiB, of which others take space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, *, leave: int) -> None:
        """Take all space but so many bytes."""
        facts = os.statvfs(self.folder)
        left = facts.f_bavail * facts.f_frsize - leave
        with open(self._ballast, "wb", buffering=0) as file:
            # The store may take the last bytes at the same time.
            with contextlib.suppress(OSError):
                while left > 0 or not leave:
                    left -= file.write(bytes(4_096))

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted(tmp_path / "disk", "size=48m") as folder:
        yield SmallDisk(folder)


@contextlib.asynccontextmanager
async def serving(folder: Path, **settings: str) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(folder / "server", **settings)
    try:
        yield await server.start()
    finally:
        server.discard()


async def test_a_full_disk_refuses_publishes_until_it_has_space(
    disk: SmallDisk,
) -> None:
    async with serving(disk.folder) as server:
        key, token = await server.key(), await server.token("ann")
        async with (
            following("sse", server.port, token) as stream,
            Api(server.port, key) as backend,
        ):
            kept = await backend.published("ann", title="before")
            disk.fill(leave=3_000_000)

            async def is_refused() -> bool:
                answer = await backend.publish("ann", title="more")
                if answer.status_code == 200:
                    kept.append(answer.json()["results"][0]["id"])
                    return False
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"] == "about:store-full"
                assert answer.headers["retry-after"] == "30"
                return True

            await eventually(is_refused)
            # Reading goes on, and marks are stored.
            assert [it["id"] for it in await backend.inbox("ann")] == kept
            marked = await backend.http.post(
                "/v1/players/ann/notifications/read", json={"all": True}
            )
            assert marked.status_code == 200, marked.text
            live = await backend.publish("ann", title="live", persist=False)
            assert live.status_code == 200, live.text

            async def is_told() -> bool:
                ready = await backend.http.get("/readyz")
                assert ready.status_code == 200, ready.text
                return bool(ready.json()["memory"] == "full")

            await eventually(is_told)
            doctor = server.run("doctor", "--data-dir", str(server.data_dir))
            assert "the disk of the store is nearly full" in doctor.stdout
            assert doctor.returncode == 1

            disk.free()

            async def is_stored() -> bool:
                answer = await backend.publish("ann", title="after")
                if answer.status_code == 200:
                    kept.append(answer.json()["results"][0]["id"])
                return bool(answer.status_code == 200)

            await eventually(is_stored)
            stored = [it["id"] for it in await backend.inbox("ann")]
            assert stored == kept
            await stream.has([*kept[:-1], live.json()["results"][0]["id"], kept[-1]])
            assert (stream.connects, stream.gaps) == (1, [])
        assert "MiB left: the store refuses publishes" in server.logged
        assert "the store takes publishes again" in server.logged


async def test_a_disk_without_a_byte_ends_the_server_and_loses_nothing(
    disk: SmallDisk,
) -> None:
    """A store that syncs before it replies cannot go on; a service manager restarts."""
    async with serving(disk.folder) as server:
        key = await server.key()
        async with Api(server.port, key) as backend:
            kept = await backend.published("ann", title="before")
            disk.fill(leave=0)
            # The store may have ended before, with a heartbeat of the server.
            with contextlib.suppress(httpx2.TransportError):
                answer = await backend.publish("ann", data="x" * 6_000)
                assert answer.status_code == 503, answer.text
        assert await server.end() == 1
        assert "writing to the AOF file" in server.logged

        disk.free()
        await server.start()

        async with Api(server.port, key) as backend:
            stored = [it["id"] for it in await backend.inbox("ann")]
            # The outcome of the other one was unknown.
            assert stored[:1] == kept and len(stored) <= 2


async def test_a_store_that_replies_before_it_syncs_goes_on_without_space(
    disk: SmallDisk,
) -> None:
    async with serving(disk.folder, durability="everysec") as server:
        key = await server.key()
        async with Api(server.port, key) as backend:
            kept = await backend.published("ann", title="before")
            disk.fill(leave=0)

            async def publishes() -> bool:
                answer = await backend.publish("ann", data="x" * 6_000)
                if answer.status_code == 200:
                    kept.append(answer.json()["results"][0]["id"])
                    return True
                refusals = "about:store-full", "about:store-away"
                assert answer.json()["type"] in refusals
                return False

            async def is_not_ready() -> bool:
                await publishes()
                ready = await backend.http.get("/readyz")
                return "MISCONF Errors writing to the AOF file" in ready.text

            await eventually(is_not_ready)

            async def is_read() -> bool:
                path = "/v1/players/ann/notifications"
                return (await backend.http.get(path)).status_code == 200

            await eventually(is_read)
            disk.free()
            await eventually(publishes)
            await server.ready()
            assert [it["id"] for it in await backend.inbox("ann")] == kept


async def slowest(backend: Api, name: str) -> float:
    """Return the lowest bound that no observation of a histogram exceeds."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    text = (await backend.http.get("/metrics", headers=headers)).text
    pattern = rf'^{name}_bucket{{.*le="([^"]+)".*}} (\S+)$'
    found = [(float(le), float(n)) for le, n in re.findall(pattern, text, re.MULTILINE)]
    assert found, text
    total = max(count for _, count in found)
    return min(le for le, count in found if count == total)


@pytest.mark.nightly
async def test_a_disk_that_hangs_leaves_outcomes_unknown_and_recovers(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, metrics_token=TOKEN) as server:
        key, token = await server.key(), await server.token("ann")
        async with (
            following("sse", server.port, token) as stream,
            Api(server.port, key) as backend,
        ):
            kept = await backend.published("ann", title="before")
            async with slowed_disk(await server.store_pid(), 200_000):
                # Slow, and kept: each write waits for its sync.
                kept += await backend.published("ann", title="slow")
                await stream.has(kept)

                async def is_measured() -> bool:
                    names = "store_roundtrip", "publish_to_write"
                    found = [
                        await slowest(backend, f"streamer_{it}_seconds") for it in names
                    ]
                    return min(found) >= 0.2

                await eventually(is_measured)
            async with slowed_disk(await server.store_pid(), 6_000_000):
                answer = await backend.publish("ann", title="hangs")
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"] == "about:outcome-unknown"

                async def is_not_ready() -> bool:
                    ready = await backend.http.get("/readyz")
                    return "no reply within 3.5 s" in ready.text

                await eventually(is_not_ready)
            await server.ready()
            stored = [it["id"] for it in await backend.inbox("ann")]
            assert stored[:2] == kept and len(stored) == 3
            await stream.has(stored)
            assert (stream.connects, stream.gaps) == (1, [])

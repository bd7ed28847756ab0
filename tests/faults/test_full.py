"""The store's memory or its disk is full, and then space is freed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess
from ..e2e.readers import TRANSPORTS, Api, following

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]


@pytest.mark.row("F13")
async def test_a_full_store_refuses_publishes_and_serves_the_rest(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    token = await server.token("ann")
    stored: list[str] = []
    refused = 0
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in TRANSPORTS
        ]
        backend = await stack.enter_async_context(Api(server.port, await server.key()))
        used = int((await server.ask_store("INFO", "memory")).split(b":")[1].split()[0])
        await server.ask_store("CONFIG", "SET", "maxmemory", used + 2_000_000)
        while refused < 20:
            answer = await backend.publish("ann", "ben", data="x" * 60_000)
            if answer.status_code == 200:
                stored.append(answer.json()["results"][0]["id"])
                continue
            refused += 1
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
        # A publish is atomic per player: of a refused one, one of the two players may
        # have got the last space. All acknowledged ones are stored, in order.
        assert len(stored) <= len(await backend.inbox("ben")) <= len(stored) + refused
        kept = [one["id"] for one in await backend.inbox("ann")]
        assert [one for one in kept if one in stored] == stored
        assert len(kept) <= len(stored) + refused
        halves, stored = len(kept) - len(stored), kept
        async with Api(server.port, token) as mine:
            page = await mine.http.get("/v1/players/me/notifications")
            assert page.status_code == 200
            marked = await mine.http.post(
                "/v1/players/me/notifications/read", json={"all": True}
            )
            assert marked.status_code == 200, marked.text
        late = await TRANSPORTS["sse"].open(server.port, token, cursor="earliest")
        assert (await late.until("notification")).id == stored[0]
        late.cut()
        await server.ask_store("CONFIG", "SET", "maxmemory", 0)
        stored += await backend.published("ann", title="room again")
        for follower in followers:
            await follower.has(stored)
            assert follower.ids == stored
            assert (follower.connects, follower.gaps) == (1, [])
    report(
        f"{refused} of {refused} publishes 503, {halves} stored for one of two "
        "players, none in part; pages and streams continued; marks got a "
        f"{marked.status_code}"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.row("A6")
@pytest.mark.privileged
async def test_a_full_disk_loses_nothing_and_recovers(
    make_server: MakeServer, small_disk: Path, report: Report
) -> None:
    """With ``always`` the store exits; its supervisor has to start it again."""
    store = StoreProcess(small_disk / "store", *DURABLE)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 * 1_048_576))
    await store.start()
    server = await make_server(redis=store.url).start()
    token = await server.token("ann")
    stored: list[str] = []
    refused = 0
    try:
        async with AsyncExitStack() as stack:
            followers = [
                await stack.enter_async_context(following(name, server.port, token))
                for name in TRANSPORTS
            ]
            key = await server.key()
            backend = await stack.enter_async_context(Api(server.port, key))
            while refused < 10:
                answer = await backend.publish("ann", data="x" * 60_000)
                if answer.status_code == 200:
                    assert not refused, "stored after the disk was full"
                    stored.append(answer.json()["results"][0]["id"])
                else:
                    assert answer.status_code == 503, answer.text
                    refused += 1
            ballast.unlink()
            begun = time.monotonic()
            if store.ended:
                await store.end()
                await store.start()
            while (
                answer := await backend.publish("ann", title="t")
            ).status_code != 200:
                assert time.monotonic() < begun + 20
                await asyncio.sleep(0.02)
            took = time.monotonic() - begun
            stored.append(answer.json()["results"][0]["id"])
            inbox = [one["id"] for one in await backend.inbox("ann")]
            # A publish with an unknown outcome may be stored, once.
            assert set(stored) <= set(inbox)
            assert len(inbox) - len(stored) <= 1
            for follower in followers:
                await follower.has(inbox)
                assert (follower.connects, follower.gaps) == (1, [])
    finally:
        store.discard()
    report(
        f"0 lost of {len(stored)} acknowledged, {refused} times 503, "
        f"first 200 {took:.1f} s after space was freed"
    )

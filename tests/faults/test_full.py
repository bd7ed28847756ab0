"""The store's memory or its disk is full, and then space is freed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from ..e2e.disks import mounted
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
    with mounted(tmp_path / "disk", "size=8m") as folder:
        yield folder


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


CGROUP_MIB = 200


class Cgroup(NamedTuple):
    """A cgroup with a limit of its own, of version 1 or 2."""

    folder: Path

    @classmethod
    def make(cls) -> Cgroup | None:
        name = f"streamer-{secrets.token_hex(4)}"
        for mount, limit in (
            (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
            (Path("/sys/fs/cgroup"), "memory.max"),
        ):
            folder = mount / name
            with contextlib.suppress(OSError):
                folder.mkdir()
                try:
                    (folder / limit).write_text(str(CGROUP_MIB * 1_048_576))
                except OSError:
                    folder.rmdir()
                else:
                    return cls(folder)
        return None

    def kills(self) -> int:
        for name in ("memory.events", "memory.oom_control"):
            if (self.folder / name).exists():
                lines = (self.folder / name).read_text().splitlines()
                return next(
                    int(x.split()[1]) for x in lines if x.startswith("oom_kill ")
                )
        raise AssertionError("no counter of kills")

    def peak_mib(self) -> float:
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            if (self.folder / name).exists():
                return int((self.folder / name).read_text()) / 1_048_576
        return float("nan")


class ConfinedServer(ServerProcess):
    """A server that begins in a cgroup."""

    cgroup: Cgroup

    def _spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        procs = self.cgroup.folder / "cgroup.procs"
        script = f'echo $$ > {procs}; exec "$@"'
        super()._spawn(["sh", "-c", script, "sh", *command], env)


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[ConfinedServer]:
    cgroup = Cgroup.make() if os.geteuid() == 0 else None
    if cgroup is None:
        pytest.skip("needs root, and the memory controller of cgroups")
    server = ConfinedServer(tmp_path / "confined")
    server.cgroup = cgroup
    try:
        yield server
    finally:
        server.discard()
        cgroup.folder.rmdir()


@pytest.mark.row("F13")
@pytest.mark.privileged
async def test_a_server_in_a_small_cgroup_is_full_and_is_not_killed(
    confined: ConfinedServer, report: Report
) -> None:
    await confined.start()
    limit = await confined.ask_store("CONFIG", "GET", "maxmemory")
    assert int(limit[1]) == (CGROUP_MIB - 80) // 2 * 1_048_576
    statuses: Counter[int] = Counter()
    key = await confined.key()
    async with Api(confined.port, key) as backend:
        while statuses[503] < 20:
            players = [f"p{sum(statuses.values()) * 20 % 200 + i}" for i in range(20)]
            answer = await backend.publish(*players, data="x" * 20_000)
            statuses[answer.status_code] += 1
        await confined.ask_store("BGREWRITEAOF")

    await confined.kill()
    await confined.start()

    async with Api(confined.port, key) as backend:
        for player in range(50):
            page = await backend.http.get(f"/v1/players/p{player}/notifications")
            assert page.status_code == 200, page.text
        while (await backend.publish("p1", data="x" * 20_000)).status_code != 503:
            statuses[200] += 1
    assert confined.cgroup.kills() == 0
    report(
        f"cgroup of {CGROUP_MIB} MiB: {dict(statuses)}, then a restart and 50 pages; "
        f"{confined.cgroup.peak_mib():.0f} MiB at most, nothing killed"
    )

"""The disk: slow disks, truncated and corrupt logs, power failures, batches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from streamer.model import decode_id
from streamer.store.client.connection import RedisConnection
from streamer.store.server.embedded import Embedded, StoreFailed

from ..e2e.processes import DURABLE, GUARD_S, ServerProcess, StoreProcess, eventually
from ..e2e.readers import TRANSPORTS, Api, following
from .load.ledger import Ledger
from .test_kill import check_followers, follow_all

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

PLAYERS = ("ann", "ben", "cid", "dot")
PUBLISHERS = 8
AOF = Path("appendonlydir") / "appendonly.aof.1.incr.aof"

EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")


def slow_down(pid: int, delay_us: int) -> subprocess.Popen[bytes]:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    return subprocess.Popen(
        [
            *(strace, "-f", "-p", str(pid), "-o", "/dev/null", "-e", "trace=fdatasync"),
            *("-e", f"inject=fdatasync:delay_enter={delay_us}"),
        ],
        stderr=subprocess.DEVNULL,
    )


@asynccontextmanager
async def slowed_disk(pid: int, delay_us: int) -> AsyncIterator[None]:
    """Delay every fdatasync of a process in the block."""
    tracer = slow_down(pid, delay_us)

    def traced() -> bool:
        if tracer.poll() is not None:
            pytest.skip("strace may not attach to a process here")
        return f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{pid}/status").read_text()

    try:
        await eventually(traced)
        yield
    finally:
        tracer.terminate()
        tracer.wait()


async def unwritten_bytes(redis: RedisConnection) -> int:
    """Return how much of the log the store has answered for, and not written."""
    info = bytes(await redis.call("INFO", "persistence"))
    return int(info.partition(b"aof_buffer_length:")[2].split(b"\r\n")[0])


@pytest.mark.row("A2")
@pytest.mark.parametrize(
    "kills",
    [1, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_kills_with_a_slow_disk_lose_nothing(
    make_server: MakeServer, make_store: MakeStore, report: Report, kills: int
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    async with AsyncExitStack() as stack:
        followers = await follow_all(stack, server)
        with ledger.publishing(PUBLISHERS):
            for _ in range(kills):
                async with slowed_disk(store.pid, 30_000):
                    await ledger.acknowledge(60)
                    await store.kill()
                await store.start()
            await ledger.acknowledge(20)
        await ledger.settle()
        findings = await ledger.check()
        assert findings.clean, findings
        received = await check_followers(server, key, followers)
    report(f"{kills} kills, {findings}; {received} received")


@pytest.mark.row("A3")
async def test_control_everysec_loses_and_reports_degraded(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    """A store that answers before it syncs can lose data: the check of A2 can fail."""
    store = await make_store(*EVERYSEC).start()
    server = await make_server(redis=store.url, durability="everysec").start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    redis = RedisConnection(store.url)

    async def degraded() -> bool:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{server.url}/readyz")
        return bool(answer.json()["durability"] == "degraded")

    with ledger.publishing(PUBLISHERS):
        async with slowed_disk(store.pid, 4_000_000):
            await ledger.acknowledge(200)
            begun = asyncio.get_running_loop().time()
            await eventually(degraded)
            took = asyncio.get_running_loop().time() - begun

            # Every two seconds the store writes the log that waits for the disk.
            async def acknowledged_unwritten() -> bool:
                waiting = await unwritten_bytes(redis)
                if not waiting:
                    return False
                # Each publisher has its answer: to what waited, or to later ones.
                await ledger.acknowledge(2 * PUBLISHERS)
                return await unwritten_bytes(redis) >= waiting

            await eventually(acknowledged_unwritten)
            await store.kill()
        await redis.close()
        await store.start()
        await server.ready()
    await ledger.settle()
    findings = await ledger.check()
    report(f"control: {findings}; reported as degraded after {took:.1f} s")
    assert findings.lost > 0


@pytest.mark.row("A7")
@pytest.mark.parametrize(
    "kills",
    [3, pytest.param(50, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_a_kill_during_a_rewrite_of_the_log_loses_nothing(
    make_server: MakeServer, make_store: MakeStore, report: Report, kills: int
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    with ledger.publishing(PUBLISHERS):
        for _ in range(kills):
            await ledger.acknowledge(30)
            await server.ask_store("BGREWRITEAOF")
            # At any point: the fork, the writing, the exchange of files.
            await asyncio.sleep(random.uniform(0, 0.06))
            await store.kill()
            await store.start()
    await ledger.settle()
    findings = await ledger.check()
    assert findings.clean, findings
    report(f"{kills} kills, {findings}")


# Power failures.


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, folder], check=False)
    if done.returncode:
        pytest.skip("an image cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def make_image(path: Path) -> Path:
    if shutil.which("mkfs.ext4") is None or os.geteuid() != 0:
        pytest.skip("needs root and mkfs.ext4")
    path.write_bytes(b"")
    os.truncate(path, 64 * 1_048_576)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


@pytest.mark.row("A4")
@pytest.mark.privileged
@pytest.mark.parametrize("fsync", ["always", "no"])
async def test_acknowledged_publishes_survive_a_power_failure(
    make_server: MakeServer, tmp_path: Path, report: Report, fsync: str
) -> None:
    """
    A disk image contains what was synced and nothing else; ``no`` is the control.

    The test copies the image block by block, in the state a power failure leaves.
    """
    image = make_image(tmp_path / "disk")
    lost = acknowledged = 0
    for round_ in range(3):
        with mounted(image, tmp_path / f"before{round_}") as folder:
            store = StoreProcess(folder / str(round_), "--appendonly", "yes")
            store._options += ("--appendfsync", fsync)
            await store.start()
            server = make_server(
                redis=store.url, durability="always" if fsync == "always" else "none"
            )
            await server.start()
            key = await server.key()
            # The server's keys have to survive in the control, too.
            os.sync()
            ledger = Ledger(server.port, key, PLAYERS)
            with ledger.publishing(PUBLISHERS):
                await ledger.acknowledge(random.randint(150, 300))
                store.send_signal(signal.SIGSTOP)
                after = tmp_path / f"image{round_}"
                shutil.copy(image, after)
                await store.kill()
            with mounted(after, tmp_path / f"after{round_}") as survivor:
                again = StoreProcess(survivor / str(round_), *store._options)
                again.port = store.port
                await again.start()
                await server.ready()
                await ledger.settle()
                findings = await ledger.check()
                lost += findings.lost
                acknowledged += findings.acknowledged
                await server.stop()
                await again.stop()
    report(f"{fsync}: {lost} lost of {acknowledged} acknowledged in 3 power failures")
    if fsync == "always":
        assert lost == 0
    else:
        assert lost > 0


# The append-only file.


async def write_log(store: StoreProcess, server: ServerProcess, count: int) -> None:
    """Publish with idempotency keys, to one player and to several."""
    async with Api(server.port, await server.key()) as backend:
        for i in range(count):
            players = PLAYERS if i % 5 == 0 else PLAYERS[:1]
            answer = await backend.publish(*players, key=f"key {i}", title=f"n{i}")
            assert answer.status_code == 200
    await server.stop()
    await store.stop()


async def violations(redis: RedisConnection) -> Counter[str]:
    """Compare every log of the demo app with its state and its idempotency keys."""
    counts: Counter[str] = Counter()
    keys = await redis.call("KEYS", "*:demo:*")
    logs = [key.decode() for key in keys if b"}:log:" in key]
    states = [key.decode() for key in keys if b"}:state:" in key]
    counts["state without log"] += len(states) - len(logs)
    for log in logs:
        head = int(await redis.call("HGET", log.replace(":log:", ":state:"), "head"))
        entries = await redis.call("XRANGE", log, "-", "+")
        offsets = [int(id.partition(b"-")[2]) for id, _ in entries]
        counts["hole"] += offsets != [*range(1, head + 1)]
        player = log.rpartition(":")[2].encode()
        onces = [k for k in keys if b"}:once:" in k and k.endswith(b":" + player)]
        counts["key without entry or the reverse"] += len(onces) != len(entries)
    return counts


@pytest.mark.row("A5")
@pytest.mark.parametrize(
    "cuts",
    [40, pytest.param(1_000, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_a_truncated_log_has_each_publish_whole_or_not_at_all(
    make_server: MakeServer,
    make_store: MakeStore,
    tmp_path: Path,
    report: Report,
    cuts: int,
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    await write_log(store, server, 40)
    whole = (store._folder / AOF).read_bytes()
    seen: set[int] = set()
    for back in random.sample(range(1, min(8_192, len(whole))), cuts):
        (store._folder / AOF).write_bytes(whole[:-back])
        await store.start()
        redis = RedisConnection(store.url)
        try:
            counts = await violations(redis)
            assert counts.total() == 0, (back, counts)
            seen.add(await redis.call("DBSIZE"))
        finally:
            await redis.close()
        await store.kill()
    # Unless truncations have different results, the test has tried nothing.
    assert len(seen) > 3
    report(f"0 violations at {cuts} truncations, {len(seen)} different results")


@pytest.mark.row("A8")
async def test_a_flipped_byte_never_yields_an_empty_store(
    make_server: MakeServer, make_store: MakeStore, tmp_path: Path, report: Report
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    await write_log(store, server, 40)
    whole = (store._folder / AOF).read_bytes()
    outcomes: Counter[str] = Counter()
    empty = tmp_path / "empty"
    empty.mkdir()
    await (await Embedded.start(empty)).stop()
    for number in range(24):
        folder = tmp_path / f"flipped{number}"
        shutil.copytree(empty, folder)
        offset = random.randrange(len(whole) // 2)
        flipped = bytearray(whole)
        flipped[offset] ^= 1 << random.randrange(8)
        (folder / AOF).write_bytes(flipped)
        try:
            embedded = await Embedded.start(folder)
        except StoreFailed as error:
            assert str(error)
            outcomes["refused"] += 1
            continue
        redis = RedisConnection(embedded.url)
        try:
            entries = sum(
                [
                    await redis.call("XLEN", key)
                    for key in await redis.call("KEYS", "*:log:demo:*")
                ]
            )
            assert entries > 0, offset
            complete = entries == 40 + 8 * (len(PLAYERS) - 1)
            outcomes["all entries there" if complete else "entries missing"] += 1
        finally:
            await redis.close()
            await embedded.stop()
    report(f"0 of 24 stores started empty: {dict(outcomes)}")


@pytest.mark.row("B3")
async def test_reused_offsets_after_a_lost_tail_are_a_gap(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    """A cursor without tags would skip the entries that reuse the lost offsets."""
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    key, token = await server.key(), await server.token("ann")
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(Api(server.port, key))
        kept = [
            id for i in range(5) for id in await backend.published("ann", title="a")
        ]
        cut = (store._folder / AOF).stat().st_size
        followers = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in TRANSPORTS
        ]
        lost = [
            id for i in range(10) for id in await backend.published("ann", title="lost")
        ]
        for follower in followers:
            await follower.has(lost)
        # Some readers stay connected, others resume with the cursor of a lost entry.
        cursor = followers[0].cursor
        await store.kill()
        os.truncate(store._folder / AOF, cut)
        await store.start()
        await server.ready()
        again = [id for i in range(10) for id in await backend.stored("ann", title="b")]
        for follower in followers:
            await follower.has(again)
            assert follower.ids == [*lost, *kept, *again] or follower.ids == [
                *lost,
                *again,
            ]
            assert len(follower.gaps) == 1
        for opener in TRANSPORTS.values():
            stream = await opener.open(server.port, token, cursor=cursor)
            assert (await stream.until("gap")).data["reason"]
            stream.cut()
        inbox = [one["id"] for one in await backend.inbox("ann")]
    assert inbox == [*kept, *again]
    offsets = [decode_id(id).offset for id in lost]  # type: ignore[union-attr]
    same = [decode_id(id).offset for id in again]  # type: ignore[union-attr]
    assert offsets == same
    report(
        f"0 of {2 * len(TRANSPORTS)} readers missed the gap; offsets alone would have "
        f"hidden {len(same)} entries"
    )


# Batches.


async def kill_server(server: ServerProcess) -> None:
    await server.kill()


async def kill_store(server: ServerProcess) -> None:
    os.kill(await server.store_pid(), signal.SIGKILL)
    await server.end()


@pytest.mark.row("D3")
@pytest.mark.parametrize("kill", [kill_server, kill_store])
@pytest.mark.parametrize(
    "kills",
    [1, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_a_batch_is_stored_whole_or_not_at_all(
    make_server: MakeServer,
    report: Report,
    kill: Callable[[ServerProcess], Awaitable[None]],
    kills: int,
) -> None:
    server = await make_server(entries_max=1_000_000).start()
    key = await server.key()
    players = [str(uuid.uuid4()) for _ in range(4)]
    acknowledged: set[str] = set()
    sent = 0

    async def send(player: str, stopped: asyncio.Event) -> None:
        nonlocal sent
        async with Api(server.port, key) as api:
            while not stopped.is_set():
                sent += 1
                name = f"{player}.{sent}"
                body = {"notifications": [{"message": name}] * 100}
                path = f"/notification/v1/player/{player}/notification"
                try:
                    answer = await api.http.post(path, json=body)
                except httpx2.TransportError:
                    await asyncio.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    acknowledged.add(name)

    for _ in range(kills):
        stopped = asyncio.Event()
        sending = [asyncio.create_task(send(name, stopped)) for name in players]
        target = len(acknowledged) + 8
        await eventually(lambda target=target: len(acknowledged) >= target)
        await asyncio.sleep(random.uniform(0, 0.02))
        await kill(server)
        stopped.set()
        async with asyncio.timeout(GUARD_S):
            await asyncio.gather(*sending)
        await server.start()
    async with Api(server.port, key) as api:
        counts = Counter(
            [one["body"] for name in players for one in await api.inbox(name)]
        )
    partial = [name for name, count in counts.items() if count != 100]
    assert partial == []
    assert acknowledged <= counts.keys()
    report(
        f"{kills} kills, 0 of {sent} batches of 100 stored in part, "
        f"0 lost of {len(acknowledged)} acknowledged"
    )

"""Nodes that receive nothing, stop, die or drain, and readers that move to another."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ..e2e.processes import DURABLE, GUARD_S, ServerProcess, StoreProcess, eventually
from ..e2e.proxy import ProxiedConnection, TcpProxy
from ..e2e.readers import TRANSPORTS, Api, Roamer, StreamRefused, following, roaming
from .test_slots import stream_head

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

NIGHTLY = [pytest.mark.nightly, pytest.mark.timeout(400)]


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def two_nodes(
    make_server: MakeServer, store: StoreProcess, **settings: object
) -> list[ServerProcess]:
    nodes = [make_server(redis=store.url, **settings) for _ in range(2)]
    await asyncio.gather(*(node.start() for node in nodes))
    return nodes


async def make_roamers(nodes: Sequence[ServerProcess], players: int) -> dict[str, Any]:
    ports = [node.port for node in nodes]
    return {
        f"p{i}": [
            Roamer(
                name, ports[:: random.choice([1, -1])], await nodes[0].token(f"p{i}")
            )
            for name in TRANSPORTS
        ]
        for i in range(players)
    }


@pytest.mark.row("C6")
@pytest.mark.parametrize(
    ("players", "kills"), [(20, 2), pytest.param(150, 20, marks=NIGHTLY)]
)
async def test_readers_of_a_killed_node_resume_at_the_other(
    make_server: MakeServer,
    make_store: MakeStore,
    report: Report,
    players: int,
    kills: int,
) -> None:
    store = await make_store(*DURABLE).start()
    nodes = await two_nodes(make_server, store)
    # Created now, since either node may be down later.
    key = await nodes[0].key()
    roamers = await make_roamers(nodes, players)
    everyone = [one for pair in roamers.values() for one in pair]
    ids: dict[str, list[str]] = {name: [] for name in roamers}
    resumed_s: list[float] = []
    async with roaming(everyone):
        for number in range(kills):
            victim, survivor = nodes[:: 1 if number % 2 else -1]
            cut = [(one, one.connects) for one in everyone if one.at == victim.port]
            async with Api(survivor.port, key) as backend:

                async def publish(backend: Api = backend) -> None:
                    new_ids = await backend.published(*roamers, title="t")
                    for name, id in zip(roamers, new_ids, strict=True):
                        ids[name].append(id)

                await publish()
                killed_at_s = time.monotonic()
                await victim.kill()
                await publish()
                for one, before in cut:
                    await one.joined(before + 1)
                    resumed_s.append(one.greeted_at_s[before] - killed_at_s)
                await publish()
            await victim.start()
        for name, pair in roamers.items():
            for one in pair:
                await one.has(ids[name])
                assert one.ids == ids[name]
                assert one.gaps == []
                assert 409 not in one.refusals
    p99 = percentile(resumed_s, 0.99)
    assert p99 <= 2 or players < 100  # The short run is beside other tests.
    report(
        f"{kills} kills, {len(everyone)} streams: 0 lost, 0 duplicates of "
        f"{sum(len(one.ids) for one in everyone)}, 0 false 409, {len(resumed_s)} "
        f"resumed: median {statistics.median(resumed_s):.2f} s, p99 {p99:.2f} s"
    )


@pytest.mark.row("C7")
@pytest.mark.parametrize(
    ("players", "drain_s"), [(40, 3), pytest.param(250, 10, marks=NIGHTLY)]
)
async def test_a_draining_node_spreads_its_disconnects(
    make_server: MakeServer,
    make_store: MakeStore,
    report: Report,
    players: int,
    drain_s: int,
) -> None:
    store = await make_store(*DURABLE).start()
    nodes = await two_nodes(make_server, store, drain_s=drain_s)
    key = await nodes[0].key()
    roamers = await make_roamers(nodes, players)
    everyone = [one for pair in roamers.values() for one in pair]
    ids: dict[str, list[str]] = {name: [] for name in roamers}
    exits_s = []
    peaks = []
    async with roaming(everyone):
        for node, other in (nodes, nodes[::-1]):
            leaving = [one for one in everyone if one.at == node.port]
            begun = time.monotonic()
            node.send_signal(signal.SIGTERM)
            async with Api(other.port, key) as backend:
                while not node.ended:
                    new_ids = await backend.published(*roamers, title="t")
                    for name, id in zip(roamers, new_ids, strict=True):
                        ids[name].append(id)
                    await asyncio.sleep(0.2)
            assert await node.end() == 0
            exits_s.append(time.monotonic() - begun)
            came = [one.greeted_at_s[-1] for one in leaving]
            peak = max(sum(at <= t < at + 1 for t in came) for at in came)
            # They are spread over the window.
            assert peak <= 2 * len(leaving) / drain_s or players < 100
            peaks.append(f"{peak} of {len(leaving)}")
            await node.start()
        for name, pair in roamers.items():
            for one in pair:
                await one.has(ids[name])
                assert one.ids == ids[name]
                assert one.gaps == []
                assert 409 not in one.refusals
    assert max(exits_s) <= GUARD_S
    report(
        f"{len(everyone)} streams, 0 lost; ended within {max(exits_s):.1f} s of a "
        f"window of {drain_s} s; at most {' and '.join(peaks)} reconnected in one "
        "second"
    )


@pytest.mark.row("C2")
@pytest.mark.nightly  # The intervals of the probe take 15 s.
async def test_a_node_without_announcements_is_not_ready_and_recovers(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    store = await make_store(*DURABLE).start()
    proxy = await TcpProxy(store.port).start()
    deaf: set[ProxiedConnection] = set()

    def deafen(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        # Only existing connections; new ones receive everything.
        return b"" if not up and pair in deaf and b"smessage" in chunk else chunk

    try:
        # The position check would repair it as well, so it is disabled here.
        server = await make_server(
            redis=proxy.redis_url, position_check_s=3_600
        ).start()
        token = await server.token("ann")
        async with AsyncExitStack() as stack:
            followers = [
                await stack.enter_async_context(following(name, server.port, token))
                for name in TRANSPORTS
            ]
            backend = await stack.enter_async_context(
                Api(server.port, await server.key())
            )
            proxy.tamper = deafen
            deaf |= proxy.connections
            begun = time.monotonic()
            ids = await backend.published("ann", title="unheard")
            await eventually(lambda: unready(server))
            found_s = time.monotonic() - begun
            for follower in followers:
                await follower.has(ids)
            await eventually(lambda: ready(server))
            repaired_s = time.monotonic() - begun
            ids += await backend.published("ann", title="heard")
            for follower in followers:
                await follower.has(ids)
                assert follower.ids == ids
                assert (follower.connects, follower.gaps) == (1, [])
    finally:
        await proxy.close()
    assert "no announcements arrive" in server.logged
    assert repaired_s <= 35
    report(f"detected after {found_s:.1f} s, ready after {repaired_s:.1f} s, 0 missing")


async def unready(server: ServerProcess) -> bool:
    return await server.probe("/readyz") == 503


async def ready(server: ServerProcess) -> bool:
    return await server.probe("/readyz") == 200


@pytest.mark.row("C3")
async def test_a_stopped_node_catches_up(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    limit = ("--client-output-buffer-limit", "pubsub 256kb 256kb 0")
    store = await make_store(*DURABLE, *limit).start()
    still, other = await two_nodes(make_server, store)
    token = await still.token("ann")
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(following(name, still.port, token))
            for name in TRANSPORTS
        ]
        backend = await stack.enter_async_context(Api(other.port, await other.key()))

        async def cut_off() -> int:
            clients = await still.ask_store("CLIENT", "LIST", "TYPE", "pubsub")
            return int(clients.count(b" name=streamer-pubsub ") < 2)

        still.send_signal(signal.SIGSTOP)
        ids: list[str] = []
        try:
            while not await cut_off():
                for _ in range(20):
                    ids += await backend.published("ann", data="x" * 12_000)
                assert len(ids) < 1_000, "the store cuts nobody"
        finally:
            still.send_signal(signal.SIGCONT)
        begun = time.monotonic()
        ids += await backend.published("ann", title="live")
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
            assert follower.gaps == []
        took = time.monotonic() - begun
        ends = [end for follower in followers for end in follower.ends]
    assert took < GUARD_S
    report(
        f"disconnected by the store; 0 lost of {2 * len(ids)}, complete after "
        f"{took:.1f} s, streams ended with {ends}"
    )


@pytest.mark.row("C11")
@pytest.mark.parametrize("clients", [100, pytest.param(1_000, marks=NIGHTLY)])
async def test_all_clients_resume_after_a_restart_of_the_store(
    make_server: MakeServer, make_store: MakeStore, report: Report, clients: int
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    names = [f"p{i}" for i in range(clients)]
    tokens = [await server.token(name) for name in names]
    openers = [*TRANSPORTS.values()]
    async with AsyncExitStack() as stack:
        stayers = [
            await stack.enter_async_context(following(name, server.port, tokens[0]))
            for name in TRANSPORTS
        ]
        backend = await stack.enter_async_context(Api(server.port, await server.key()))
        first = await backend.published(*names, title="first")
        for _ in range(10):
            await backend.published(*names, title="t")
        before = await server.ask_store("PING")
        assert before
        refused = 0

        async def resume(number: int) -> float:
            nonlocal refused
            begun = time.monotonic()
            while True:
                opener = openers[number % 2]
                try:
                    stream = await opener.open(
                        server.port, tokens[number], cursor=first[number]
                    )
                    break
                except StreamRefused as error:
                    assert error.status == 503
                    refused += 1
                    await asyncio.sleep(0.1)  # The back-off of a client.
            missed = await stream.notifications(10)
            assert {message.data["title"] for message in missed} == {"t"}
            stream.cut()
            return time.monotonic() - begun

        await store.kill()
        await store.start()
        took = await asyncio.gather(*map(resume, range(clients)))
        last = await backend.published(names[0], title="last")
        for stayer in stayers:
            await stayer.has(last)
            assert (stayer.connects, stayer.gaps) == (1, [])
        commands = await server.ask_store("INFO", "commandstats")
    calls = sum(
        int(line.partition(b"calls=")[2].split(b",")[0])
        for line in commands.splitlines()
        if line.startswith((b"cmdstat_evalsha:", b"cmdstat_eval:"))
    )
    p99 = percentile(took, 0.99)
    assert p99 <= GUARD_S
    report(
        f"0 lost of {10 * clients}, p99 {p99:.2f} s, {refused} times 503, "
        f"{calls} scripts run in the store; streams stayed open"
    )


# C8: half-open connections, without a packet in either direction.

HALF_OPEN = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.sendall(sys.stdin.buffer.read())
while sock.recv(65536):
    print("received", flush=True)
"""


@pytest.fixture
def namespace() -> Iterator[tuple[str, str, str]]:
    """Yield a network namespace: its name, the far end of its link, our address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    number = random.randrange(1, 250)
    name, here, there = (f"fault{number}{part}" for part in ("", "a", "b"))
    address = f"10.231.{number}"

    def ip(*words: str) -> int:
        return subprocess.run(
            ["ip", *words], check=False, stderr=subprocess.DEVNULL
        ).returncode

    steps = (
        ("netns", "add", name),
        ("link", "add", here, "type", "veth", "peer", "name", there),
        ("link", "set", there, "netns", name),
        ("addr", "add", f"{address}.1/24", "dev", here),
        ("link", "set", here, "up"),
        ("-n", name, "addr", "add", f"{address}.2/24", "dev", there),
        ("-n", name, "link", "set", there, "up"),
    )
    try:
        if any(ip(*step) for step in steps):
            pytest.skip("a network of its own cannot be made here")
        yield name, there, f"{address}.1"
    finally:
        ip("link", "del", here)
        ip("netns", "del", name)


@pytest.mark.row("C8")
@pytest.mark.privileged
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_half_open_connection_releases_its_slot(
    make_server: MakeServer,
    namespace: tuple[str, str, str],
    report: Report,
    transport: str,
) -> None:
    name, there, address = namespace
    server = await make_server(host="0.0.0.0").start()
    token = await server.token("ann")
    head = stream_head(token, websocket=transport == "websocket").replace(
        b"Host: x", b"Host: %b" % address.encode()
    )
    program = ("ip", "netns", "exec", name, sys.executable, "-c", HALF_OPEN)
    client = await asyncio.create_subprocess_exec(
        *(*program, address, str(server.port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(head)
        client.stdin.write_eof()
        await client.stdout.readline()
        await server.listeners("ann", 1)
        # The far end of the link is down: no packet passes.
        pulled = ("ip", "-n", name, "link", "set", there, "down")
        assert await (await asyncio.create_subprocess_exec(*pulled)).wait() == 0
        begun = time.monotonic()
        async with Api(server.port, await server.key()) as backend:
            await backend.published("ann", title="into the void")

        async def gone() -> bool:
            key = await server.ask_store("KEYS", "*:lease:demo:ann")
            return not key or await server.ask_store("HLEN", key[0]) == 0

        await eventually(gone, within_s=60)
        took = time.monotonic() - begun
    finally:
        client.kill()
        await client.wait()
    report(f"{transport}: released after {took:.1f} s")
    assert took <= 20

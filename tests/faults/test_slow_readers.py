"""Many stalled readers: the memory they need, and the delay they cause to others."""

from __future__ import annotations

import asyncio
import re
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ..e2e.processes import ServerProcess
from ..e2e.readers import TRANSPORTS, Api, RawStream
from .test_node_faults import percentile
from .test_slots import stalled, stream_head

MakeServer = Callable[..., ServerProcess]
Report = Callable[[object], None]

MIB = 1_048_576
GROWTH_MAX = 150 * MIB
HEALTHY = 20
DATA = "x" * 4_000


def resident(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return 1_024 * int(re.search(r"VmRSS:\s+(\d+)", text)[1])  # type: ignore[index]


def tcp_memory() -> int:
    """Return the kernel's memory for all TCP connections of the machine."""
    text = Path("/proc/net/sockstat").read_text()
    pages = int(re.search(r"^TCP:.* mem (\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return pages * resource.getpagesize()


DRAIN = """
import selectors, socket, sys
head = sys.stdin.buffer.read()
selector = selectors.DefaultSelector()
for _ in range(int(sys.argv[2])):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.sendall(head)
    selector.register(sock, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        if not key.fileobj.recv(262144):
            selector.unregister(key.fileobj)
"""


@asynccontextmanager
async def reading_clients(
    server: ServerProcess, token: str, count: int
) -> AsyncIterator[None]:
    """Run so many readers that read, in a process of their own."""
    program = (sys.executable, "-c", DRAIN, str(server.port), str(count))
    process = await asyncio.create_subprocess_exec(*program, stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(stream_head(token, websocket=False))
        process.stdin.write_eof()
        await server.listeners("p", count + HEALTHY)
        yield
    finally:
        process.kill()
        await process.wait()
        await server.listeners("p", HEALTHY)


class Delays:
    """Publishes at a rate, and measures how long each takes to reach each reader."""

    def __init__(self, backend: Api, streams: list[RawStream]) -> None:
        self._backend = backend
        self._streams = streams

    async def measure(
        self, server: ServerProcess, count: int, per_s: float
    ) -> list[float]:
        sent_s: dict[str, float] = {}
        delays: list[float] = []
        self.most_resident = self.most_tcp = 0

        async def listen(stream: RawStream) -> None:
            for _ in range(count):
                message = await stream.until("notification")
                at_s = time.monotonic()
                delays.append(at_s - sent_s[message.data["title"]])

        admission = [asyncio.create_task(listen(stream)) for stream in self._streams]
        begun = time.monotonic()
        for i in range(count):
            await asyncio.sleep(max(0.0, begun + i / per_s - time.monotonic()))
            sent_s[str(i)] = time.monotonic()
            await self._backend.published("p", title=str(i), data=DATA)
            self.most_resident = max(self.most_resident, resident(server.pid))
            self.most_tcp = max(self.most_tcp, tcp_memory())
        await asyncio.gather(*admission)
        return delays


@pytest.mark.row("C9")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("clients", "per_s", "count"),
    [
        (100, 40.0, 100),
        pytest.param(
            1_000, 10.0, 250, marks=[pytest.mark.nightly, pytest.mark.timeout(300)]
        ),
    ],
)
async def test_many_stalled_readers_cost_little(
    make_server: MakeServer, report: Report, clients: int, per_s: float, count: int
) -> None:
    server = await make_server(
        listeners_per_player_max=clients + HEALTHY, send_age_s=4
    ).start()
    token = await server.token("p")
    async with Api(server.port, await server.key()) as backend:
        healthy: list[RawStream] = [
            await list(TRANSPORTS.values())[i % 2].open(server.port, token)
            for i in range(HEALTHY)
        ]
        for stream in healthy:
            await stream.until("hello")
        delays = Delays(backend, healthy)
        # Readers that read need time, too, so the same number of them is the baseline.
        async with reading_clients(server, token, clients):
            before = await delays.measure(server, count, per_s)
        had, had_tcp = resident(server.pid), tcp_memory()
        socks = [
            await stalled(server, token, websocket=bool(i % 2)) for i in range(clients)
        ]
        await server.listeners("p", clients + HEALTHY)
        during = await delays.measure(server, count, per_s)
        await server.listeners("p", HEALTHY)
        for sock in socks:
            sock.close()
        for stream in healthy:
            stream.cut()
    grown, grown_tcp = delays.most_resident - had, delays.most_tcp - had_tcp
    was, is_ = percentile(before, 0.99), percentile(during, 0.99)
    report(
        f"{clients} stalled readers: RSS +{grown / MIB:.0f} MiB, TCP memory "
        f"+{grown_tcp / MIB:.0f} MiB, all disconnected; p99 of healthy readers "
        f"{1_000 * is_:.0f} ms, {1_000 * was:.0f} ms beside as many that read: "
        f"{is_ / was:.1f} times as long"
    )
    assert grown <= GROWTH_MAX
    assert grown_tcp <= GROWTH_MAX

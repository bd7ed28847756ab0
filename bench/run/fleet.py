"""
What a node with several workers uses: connected, idle, and under load.

Starts the node and several load processes, because a process has a limit of open files,
often 20,000, on either side of a connection. Connects from many addresses of the
loopback, because each has 28,000 ports. Memory of the kernel is that of its sockets and
their buffers, halved: both ends of a connection are on this machine.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from streamer.bench.load.handle import Load, LoadError
from streamer.bench.machine import raise_fd_limit
from streamer.bench.target import Requirements
from streamer.bench.usage import Usage

from ..peers.streamer import Streamer

__all__ = ["Fleet", "InUse", "Phase", "socket_bytes"]

SIZE: Final = 200
SOURCES: Final = 16
IN_FLIGHT: Final = 32
"""Handshakes at a time, per worker."""
CONNECTS_PER_S_MIN: Final = 100
"""A busy machine may be slow; what is measured is CPU time."""
PER_REQUEST: Final = 100
REST_S: Final = 1.0
WARM_UP: Final = 20
"""Connections per worker that load what a worker needs for the first of its kind."""


class Phase(NamedTuple):
    """What was done in a time, and what that has used."""

    done: float
    """Operations; connections for idling."""
    seconds: float
    node_cpu_s: float
    store_cpu_s: float
    received: float
    """Bytes that readers have received, without headers; of handshakes, none."""


class InUse(NamedTuple):
    """Bytes at a moment."""

    node: int
    store: int
    """What the store counts, without what its allocator holds."""
    kernel: int


class Fleet:
    """
    Nodes on one store, and readers of them; a context.

    Args:
        workers: Number of workers, of all nodes together.
        connections: How many readers it must have room for.
        loaders: Number of load processes.
        nodes: Number of nodes, which start one after the other.
        say: Shows what is going on.

    """

    def __init__(
        self,
        workers: int,
        connections: int,
        *,
        loaders: int = 1,
        nodes: int = 1,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.workers = workers
        self.nodes = nodes
        self.connections = connections
        self._loaders = loaders
        self._say = say
        assert workers % nodes == 0, "nodes have the same number of workers"
        self.target = Streamer(workers // nodes, nodes)

    def __enter__(self) -> Fleet:
        raise_fd_limit()
        self._folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self._load = Load(self._loaders, set())
        try:
            # Workers share the limits, and the kernel fills one before the others.
            room = 2 * (self.connections + WARM_UP * self.workers) + 1_000
            self.target.start(Requirements(room, self.connections), self._folder)
            self._warm_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._load.stop()
        self.target.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def memory(self) -> InUse:
        """Return the memory in use."""
        usage = self.target.usage()
        return InUse(usage.server_rss, self.target.store_bytes(), _kernel_bytes() // 2)

    def connect(self) -> Phase:
        """Open all readers, each of a player of its own."""
        self._say(f"minting {self.connections:,} tokens")
        requests = self.target.readers("ws", self.connections)
        self._say(f"opening {self.connections:,} connections to {self.workers} workers")

        def work() -> tuple[float, float]:
            opened = self._load.open(
                address=self.target.address,
                others=self.target.others,
                requests=requests,
                connections=self.connections,
                ready=self.target.ready("ws"),
                sampled=0,
                sources=SOURCES,
                # A worker that has more to do at a time does it for less.
                in_flight=max(1, IN_FLIGHT * self.workers // self._loaders),
                within_s=30 + self.connections / CONNECTS_PER_S_MIN,
            )
            if opened["open"] < self.connections:
                raise LoadError(
                    f"{opened['open']:,} of {self.connections:,} connections could be "
                    f"opened; refused: {opened['refused']}"
                )
            return float(opened["open"]), 0

        return self._watched(work)

    def idle(self, seconds: float) -> Phase:
        """Hold what is open for a time. Raises LoadError if some was closed."""
        self._load.rest(REST_S)
        self._say(f"holding it for {seconds:g} s")

        def work() -> tuple[float, float]:
            held = self._load.rest(seconds)
            if held["closed"]:
                raise LoadError(f"{held['closed']:,} connections were closed")
            return float(held["open"]), float(held["bytes"])

        return self._watched(work)

    def publish(self, rate: float, seconds: float) -> Phase:
        """Publish, one player in a request; the players may have a reader each."""
        return self._send(self.target.publish(SIZE), rate, seconds, reached=0)

    def deliver(self, rate: float, seconds: float) -> Phase:
        """Publish to one reader each."""
        templates, _ = self.target.publish_separately(SIZE, self.connections, 1)
        return self._send(templates, rate, seconds, reached=1)

    def broadcast(self, rate: float, seconds: float) -> Phase:
        """Publish to everyone."""
        templates, _ = self.target.broadcast(SIZE, self.connections)
        return self._send(templates, rate, seconds, reached=self.connections)

    def store(self, times: int) -> None:
        """Store notifications for every player, each of whom has a reader."""
        templates = self.target.publish_many(SIZE, self.connections, PER_REQUEST)
        self._say(f"storing {times * self.connections:,} notifications")
        facts = self._load.publish(
            address=self.target.address,
            templates=templates,
            connections=8,
            per_message=PER_REQUEST,
            window=8,
            seconds=600,
            count=times * len(templates),
        )
        if facts["failed"] or set(facts["statuses"]) - {"200"}:
            raise LoadError(f"{facts['failed']} {facts['statuses']}")

    def reconnect(self) -> Phase:
        """Cut all readers off, and let them come back as fast as they can."""
        self._load.close()
        return self.connect()

    def _send(self, templates: Any, rate: float, seconds: float, reached: int) -> Phase:
        self._say(f"sending {rate:g} a second for {seconds:g} s")

        def work() -> tuple[float, float]:
            facts = self._load.publish(
                address=self.target.address,
                others=self.target.others,
                templates=templates,
                players=self.connections,
                connections=8 * self.workers,
                per_message=reached,
                rate=rate,
                seconds=seconds,
            )
            if facts["failed"] or set(facts["statuses"]) - {"200"}:
                raise LoadError(f"{facts['failed']} {facts['statuses']}")
            if reached and facts["received"] != facts["sent"] * reached:
                raise LoadError(
                    f"{facts['sent']:,} messages to {reached:,} readers each, but "
                    f"{facts['received']:,} deliveries"
                )
            done = facts["received"] if reached else facts["answered"]
            return float(done), float(facts["bytes"])

        return self._watched(work)

    def _warm_up(self) -> None:
        requests = self.target.readers("ws", WARM_UP)
        self._load.open(
            address=self.target.address,
            others=self.target.others,
            requests=requests * self.workers,
            connections=WARM_UP * self.workers,
            ready=self.target.ready("ws"),
            sampled=0,
        )
        self._load.close()
        self._load.rest(REST_S)

    def _watched(self, work: Callable[[], tuple[float, float]]) -> Phase:
        before, began_s = self.target.usage(), time.monotonic()
        done, received = work()
        seconds, after = time.monotonic() - began_s, self.target.usage()
        return Phase(done, seconds, *_cpu_between(before, after), received)


def _cpu_between(before: Usage, after: Usage) -> tuple[float, float]:
    return (
        after.server_cpu_s - before.server_cpu_s,
        after.store_cpu_s - before.store_cpu_s,
    )


_SLABS: Final = ("TCP", "sock_inode_cache", "filp", "eventpoll_epi", "ep_head")
"""A socket, its file, and their registration with epoll."""


def socket_bytes() -> int:
    """Return the size of the kernel's objects of a socket, without buffers."""
    return sum(size for _, size in _slabs())


def _kernel_bytes() -> int:
    """
    Return the memory of the kernel's sockets.

    Of their buffers alone, where only root may read the rest.
    """
    total = sum(count * size for count, size in _slabs())
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            total += int(line.split()[-1]) * resource.getpagesize()
    return total


def _slabs() -> list[tuple[int, int]]:
    """Return how many objects of each kind there are, and their size."""
    try:
        lines = Path("/proc/slabinfo").read_text().splitlines()
    except OSError:
        return []
    found = [line.split() for line in lines]
    return [(int(it[1]), int(it[3])) for it in found if it[0] in _SLABS]

"""
streamer as several processes, started here: nodes on shards, or workers of a node.

All processes are on this machine, so together they are no faster than one. What they
show is the CPU time of each, per operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar, TypeAlias

from streamer.bench.deployment import StreamerTarget
from streamer.bench.own_app import OwnApp
from streamer.bench.target import Requirements
from streamer.bench.usage import family
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.client.slots import SLOTS
from streamer.store.server.server_binary import find_server

from .base import Peer, free_port
from .streamer import Streamer

__all__ = ["TOPOLOGIES", "Publishers", "Topology"]

IN_FLIGHT = 32
"""Connections that carry requests to a node."""
PER_WORKER = 16
"""Connections that carry requests to a node, for each of its workers."""

Publishers: TypeAlias = tuple[list[tuple[str, int]], int]
"""Addresses that get requests in turn, and by how many connections each."""

START_S = 30.0
"""A cluster takes two seconds before it serves, and longer on a busy machine."""


class Topology(Peer, StreamerTarget):
    """A deployment whose processes are known by name."""

    does = "verifies tokens, takes leases, stores with fsync, resumes"

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[tuple[str, int]] = []
        """The nodes."""
        self.processes: dict[str, int] = {}
        """Process ids, by part and number: node 1, node 2, …, shard 1, …"""

    @property
    @abstractmethod
    def pieces(self) -> Mapping[str, int]:
        """The number of processes, by part."""

    def publishers(self, load: int) -> Publishers:
        """
        Return where requests go to.

        Args:
            load: The load, as a multiple of that for one piece.

        """
        return self.addresses, IN_FLIGHT


class _Cluster(Topology):
    """So many nodes on a Redis Cluster of so many primaries."""

    shards: ClassVar[int] = 1
    nodes: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self._own: OwnApp | None = None

    @property
    def pieces(self) -> Mapping[str, int]:
        return {"node": self.nodes, "shard": self.shards}

    def start(self, requirements: Requirements, folder: Path) -> None:
        ports = [self._start_shard(number, folder) for number in range(self.shards)]
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in ports)
        self.store_url = f"redis+cluster://{hosts}"
        asyncio.run(_join(ports))
        for number in range(self.nodes):
            self._start_node(number, requirements, folder)
        self.address = self.addresses[0]
        self._own = OwnApp(self._store)
        self.key, self.app = self._own.create(), self._own.name

    def mint(self, players: range) -> list[str]:
        assert self._own is not None
        return self._own.mint([self.player(number) for number in players])

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncIterator[RedisConnection]:
        redis = redis_at(self.store_url, name="bench")
        try:
            yield redis
        finally:
            await redis.close()

    def _start_shard(self, number: int, folder: Path) -> tuple[int, int]:
        """Start a server; return its port and the one for the cluster."""
        port, bus_port = free_port(), free_port()
        place = folder / f"shard{number}"
        place.mkdir(parents=True)
        command = [str(find_server()), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(place), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", "--cluster-enabled", "yes"]
        command += ["--cluster-port", str(bus_port)]
        command += ["--cluster-require-full-coverage", "no"]
        process = self.run(command, place)
        self._wait_until_open("", place, ("127.0.0.1", port))
        self.processes[f"shard {number + 1}"] = process.pid
        return port, bus_port

    def _start_node(self, number: int, needs: Requirements, folder: Path) -> None:
        place, address = folder / f"node{number}", ("127.0.0.1", free_port())
        connections = str(max(needs.connections + 1_000, 10_000))
        env = {
            "STREAMER_LISTENERS_PER_PLAYER_MAX": connections,
            "STREAMER_CONNECTIONS_MAX": connections,
            "STREAMER_CONNECTS_PER_S_MAX": str(needs.connects_per_s),
        }
        command = [sys.executable, "-m", "streamer", "serve"]
        command += ["--port", str(address[1]), "--redis", self.store_url]
        process = self.run(command, place, env)
        self._wait_until_open("/readyz", place, address)
        self.addresses.append(address)
        self.processes[f"node {number + 1}"] = process.pid


class _Workers(Streamer, Topology):
    """One node of so many workers, on its embedded store."""

    workers: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__(self.workers)

    @property
    def pieces(self) -> Mapping[str, int]:
        return {"worker": self.workers, "store": 1}

    def start(self, requirements: Requirements, folder: Path) -> None:
        super().start(requirements, folder)
        self.addresses = [self.address]
        (root,) = self.roots
        workers, stores = family([root])
        if self.workers > 1:
            workers.remove(root)
            self.processes["supervisor 1"] = root
        for part, pids in (("worker", workers), ("store", stores)):
            if len(pids) != self.pieces[part]:
                raise RuntimeError(
                    f"{self.title}: {len(pids)} processes are its {part}s"
                )
            for number, pid in enumerate(sorted(pids), 1):
                self.processes[f"{part} {number}"] = pid

    def publishers(self, load: int) -> Publishers:
        # The kernel decides by the connection which worker gets its requests. Those to
        # one address use as few connections as they can; so it is there many times.
        return self.addresses * (PER_WORKER * load), 1


async def _join(ports: list[tuple[int, int]]) -> None:
    """Make servers a cluster, with slots in equal parts; wait until it serves."""
    count = len(ports)
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for port, _ in ports:
            servers.append(RedisConnection(f"redis://127.0.0.1:{port}", name="bench"))
            stack.push_async_callback(servers[-1].close)
        for number, server in enumerate(servers):
            first, end = SLOTS * number // count, SLOTS * (number + 1) // count
            await server.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            await server.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port, bus_port in ports[1:]:
            await servers[0].call("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        until_s = time.monotonic() + START_S
        while not all([await _serves(server, count) for server in servers]):
            if time.monotonic() > until_s:
                raise RuntimeError(f"a cluster of {count} did not start")
            await asyncio.sleep(0.05)


async def _serves(server: RedisConnection, count: int) -> bool:
    """Whether a server knows all others, and that every slot has a primary."""
    lines = bytes(await server.call("CLUSTER", "INFO")).decode().split()
    info = dict(line.split(":", 1) for line in lines)
    return (
        info["cluster_state"] == "ok"
        and info["cluster_known_nodes"] == str(count)
        and info["cluster_slots_ok"] == str(SLOTS)
    )


def _cluster(called: str, titled: str, *, of_shards: int, of_nodes: int) -> type[Peer]:
    class One(_Cluster):
        name = called
        title = titled
        shards = of_shards
        nodes = of_nodes

    return One


def _workers(called: str, titled: str, *, of_workers: int) -> type[Peer]:
    class One(_Workers):
        name = called
        title = titled
        workers = of_workers

    return One


TOPOLOGIES = [
    _cluster("shards-1", "1 shard", of_shards=1, of_nodes=1),
    _cluster("shards-1-again", "1 shard again", of_shards=1, of_nodes=1),
    _cluster("shards-2", "2 shards", of_shards=2, of_nodes=1),
    _cluster("shards-3", "3 shards", of_shards=3, of_nodes=1),
    _cluster("nodes-1", "1 node", of_shards=1, of_nodes=1),
    _cluster("nodes-1-again", "1 node again", of_shards=1, of_nodes=1),
    _cluster("nodes-2", "2 nodes", of_shards=1, of_nodes=2),
    _workers("workers-1", "1 worker", of_workers=1),
    _workers("workers-1-again", "1 worker again", of_workers=1),
    _workers("workers-2", "2 workers", of_workers=2),
    _workers("workers-4", "4 workers", of_workers=4),
]

"""
A Redis Cluster as processes: primaries, each with replicas if asked for.

The nodes start with a configuration that names all of them, so they need not meet. A
cluster takes two seconds to accept writes, which is a constant of the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from streamer.errors import Unavailable
from streamer.store.client.connection import RedisConnection
from streamer.store.client.slots import SLOTS
from streamer.store.server.server_binary import find_server, read_version

from .processes import DURABLE, StoreProcess, free_port

START_S = 60.0
"""How long a cluster may take to accept commands on a busy machine."""


def debian_server() -> Path | None:
    """Return the system's redis-server, the oldest one that is supported."""
    found = shutil.which("redis-server")
    return None if found is None else Path(found)


class ClusterNode(StoreProcess):
    """
    A node of a cluster.

    Args:
        folder: Its directory.
        number: Its number, from which its id follows.
        options: Options of the server.
        node_timeout_ms: Silence after which the others take it for dead.
        binary: The server program; None is the one that `streamer serve` would choose.
        certificate: A file with its key and certificate. The node then has a port with
            TLS, too, which is what it tells other nodes and clients that use TLS.

    """

    def __init__(
        self,
        folder: Path,
        number: int,
        *options: str,
        node_timeout_ms: int,
        binary: Path | None,
        certificate: Path | None = None,
    ) -> None:
        self.bus_port = free_port()
        self.tls_port = free_port() if certificate else 0
        if certificate:
            options += (
                *("--tls-port", str(self.tls_port), "--tls-cluster", "yes"),
                *("--tls-replication", "yes", "--tls-auth-clients", "no"),
                *("--tls-cert-file", str(certificate)),
                *("--tls-key-file", str(certificate)),
                *("--tls-ca-cert-file", str(certificate)),
            )
        super().__init__(
            _made(folder),
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(node_timeout_ms)),
            *("--cluster-require-full-coverage", "no"),
            *("--repl-diskless-sync-delay", "0"),
            # A primary without slots stays one.
            *("--cluster-allow-replica-migration", "no"),
            *options,
            binary=binary,
        )
        self.folder = folder
        self.id = f"{number + 1:040x}"

    @property
    def known_port(self) -> int:
        """The port by which the other nodes know it."""
        return self.tls_port or self.port

    async def ask(self, *command: str | int) -> Any:
        """Return the reply to a command, sent on a connection of its own."""
        redis = RedisConnection(self.url, name="test")
        try:
            return await redis.call(*command)
        finally:
            await redis.close()


class Cluster:
    """
    The whole.

    Args:
        folder: The directory of all nodes.
        options: Options of every server.
        primaries: How many primaries have slots, in equal parts.
        replicas: How many replicas each of them has.
        spares: How many further primaries have no slots.
        node_timeout_ms: As for `ClusterNode`.
        binary: As for `ClusterNode`.
        certificate: As for `ClusterNode`, of all nodes.

    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        primaries: int = 3,
        replicas: int = 0,
        spares: int = 0,
        node_timeout_ms: int = 15_000,
        binary: Path | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._certificate = certificate
        options = options or DURABLE
        count = primaries * (1 + replicas) + spares
        self.nodes = [
            ClusterNode(
                folder / f"node{number}",
                number,
                *options,
                node_timeout_ms=node_timeout_ms,
                binary=binary,
                certificate=certificate,
            )
            for number in range(count)
        ]
        self.primaries = self.nodes[:primaries]
        self.replicas = self.nodes[primaries : primaries * (1 + replicas)]
        """The replicas of the first primary, the second, …, the first again, …"""
        self.spares = self.nodes[primaries * (1 + replicas) :]
        # Later servers rely on it, and the oldest one takes it for a host name.
        version = read_version(binary or find_server())
        self._names_shards = version is not None and version >= (7, 2)
        for node in self.nodes:
            self._configure(node)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.known_port}" for node in self.primaries)
        if self._certificate is None:
            return f"redis+cluster://{hosts}"
        return f"rediss+cluster://{hosts}?ssl_ca_certs={self._certificate}"

    async def start(self) -> Cluster:
        await asyncio.gather(*(node.start() for node in self.nodes))
        deadline = time.monotonic() + START_S
        while not all([await self._is_well(node) for node in self.nodes]):
            assert time.monotonic() < deadline, self.nodes[0].printed
            await asyncio.sleep(0.05)
        return self

    async def move(
        self, slot: int, source: ClusterNode, target: ClusterNode, *, batch: int = 50
    ) -> None:
        """Move a slot key by key, as every cluster can."""
        async with self.moving(slot, source, target, batch=batch):
            pass

    async def move_at_once(
        self, slot: int, source: ClusterNode, target: ClusterNode
    ) -> None:
        """Move a slot as a whole, as Valkey 9 can."""
        await source.ask(
            "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id
        )
        deadline = time.monotonic() + START_S
        while slot not in await self._slots_of(target):
            assert time.monotonic() < deadline, await source.ask(
                "CLUSTER", "GETSLOTMIGRATIONS"
            )
            await asyncio.sleep(0.05)

    async def _slots_of(self, node: ClusterNode) -> set[int]:
        ranges = await node.ask("CLUSTER", "SLOTS")
        return {
            slot
            for first, last, primary, *_ in ranges
            if primary[1] == node.port
            for slot in range(first, last + 1)
        }

    @contextlib.asynccontextmanager
    async def moving(
        self, slot: int, source: ClusterNode, target: ClusterNode, *, batch: int = 50
    ) -> AsyncIterator[None]:
        """Move a slot; the block runs when its keys have moved, and it has not."""
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, batch):
            place = "127.0.0.1", target.known_port
            await source.ask("MIGRATE", *place, "", 0, 5_000, "KEYS", *keys)
        try:
            yield
        finally:
            others = (*self.primaries, *self.spares)
            nodes = dict.fromkeys((target, source, *others))
            for node in nodes:
                await node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
            await self._know_epoch(target, nodes)

    async def _know_epoch(
        self, target: ClusterNode, nodes: Iterable[ClusterNode]
    ) -> None:
        """
        Wait until nodes know the configuration epoch that a move gave to its target.

        A node that moves the slot on before would choose the same epoch, and the two
        would never agree on the slot.
        """
        deadline = time.monotonic() + START_S
        while len({await _epoch_of(target, node) for node in nodes}) > 1:
            assert time.monotonic() < deadline, f"{target.id} is not known everywhere"
            await asyncio.sleep(0.01)

    def discard(self) -> None:
        for node in self.nodes:
            node.discard()

    async def _is_well(self, node: ClusterNode) -> bool:
        try:
            state = await node.ask("CLUSTER", "INFO")
            role = await node.ask("ROLE")
        except (Unavailable, RedisError):
            return False
        in_sync = role[0] == b"master" or role[3] == b"connected"
        return b"cluster_state:ok" in state and in_sync

    def _configure(self, own: ClusterNode) -> None:
        lines = []
        count = len(self.primaries)
        for node in self.nodes:
            flags, primary, slots = "master", "-", ""
            if node in self.primaries:
                number = self.primaries.index(node)
                first, end = SLOTS * number // count, SLOTS * (number + 1) // count
                slots = f" {first}-{end - 1}"
            elif node in self.replicas:
                flags = "slave"
                primary = self.primaries[self.replicas.index(node) % count].id
            myself = "myself," if node is own else ""
            shard = node.id if primary == "-" else primary
            aux = f",,tls-port=0,shard-id={shard}" if self._names_shards else ""
            place = f"127.0.0.1:{node.known_port}@{node.bus_port}"
            lines.append(
                f"{node.id} {place}{aux} {myself}{flags} "
                f"{primary} 0 0 {self._epoch(node)} connected{slots}"
            )
        lines.append(f"vars currentEpoch {len(self.nodes)} lastVoteEpoch 0")
        (own.folder / "nodes.conf").write_text("\n".join(lines) + "\n")

    def _epoch(self, node: ClusterNode) -> int:
        if node in self.replicas:
            return self.replicas.index(node) % len(self.primaries) + 1
        return self.nodes.index(node) + 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _epoch_of(node: ClusterNode, asked: ClusterNode) -> int:
    """Return the configuration epoch of a node, as another one knows it."""
    lines = bytes(await asked.ask("CLUSTER", "NODES")).decode().splitlines()
    (line,) = [it for it in lines if it.startswith(node.id)]
    return int(line.split()[6])

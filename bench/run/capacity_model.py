"""
The arithmetic of `bench.capacity`: costs per operation times rates. Pure.

Reads costs from the text of ``RESULTS.md`` and from what was measured.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "GIB",
    "PACKET_BYTES",
    "US",
    "Costs",
    "Cpu",
    "Input",
    "Machines",
    "Memory",
    "Plan",
    "Rates",
    "costs_of",
    "figure",
    "inputs",
    "plan",
    "predict_cpu",
    "predict_memory",
]

GIB: Final = 2**30
US: Final = 1e-6
HOURS_PER_MONTH: Final = 730
PACKET_BYTES: Final = 66
"""Headers of a packet: Ethernet without preamble, IPv4, TCP with timestamps."""
CONNECT_WIRE_BYTES: Final = 500 + 5 * PACKET_BYTES
"""A head and a greeting, in five packets with those of TCP."""
PRIMARIES_MIN: Final = 3
"""A Redis Cluster that fails over by itself has at least three primaries."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """
    What each thing costs: CPU in µs, memory and network in bytes.

    Args:
        worker_bytes: A worker without connections; resident.
        supervisor_bytes: What a node with several workers has in addition.
        connection_bytes: An open, idle connection in its worker; resident.
        socket_bytes: The same in the kernel.
        lease_bytes: The same in the store.
        player_bytes: A player in the store that has been sent something.
        notification_bytes: A notification in the store, with a text of 200 bytes.
        worker_idle_us: A worker without connections, per second.
        worker_idle_store_us: The same in each shard.
        idle_us: An open, idle connection in its worker, per second.
        idle_store_us: The same in the store.
        connect_us: Opening a stream, with its token and its lease.
        connect_store_us: The same in the store.
        storm_us: A reader that comes back when all were cut off, and catches up.
        storm_store_us: The same in the store.
        publish_us: A request that stores a notification for one player.
        publish_store_us: The same in the store.
        delivery_us: The delivery of that to one stream.
        broadcast_us: The delivery of a notification to everyone, to each stream.
        idle_wire_bytes: What an idle connection is sent per second, with headers.
        delivery_wire_bytes: A delivery, with headers.
        connect_wire_bytes: What a stream is sent as it opens, with headers.

    """

    worker_bytes: float
    supervisor_bytes: float
    connection_bytes: float
    socket_bytes: float
    lease_bytes: float
    player_bytes: float
    notification_bytes: float
    worker_idle_us: float
    worker_idle_store_us: float
    idle_us: float
    idle_store_us: float
    connect_us: float
    connect_store_us: float
    storm_us: float
    storm_store_us: float
    publish_us: float
    publish_store_us: float
    delivery_us: float
    broadcast_us: float
    idle_wire_bytes: float
    delivery_wire_bytes: float
    connect_wire_bytes: float


@dataclasses.dataclass(frozen=True)
class Rates:
    """
    What a game's players do, on average.

    Args:
        players: Players that the store knows, per connection.
        kept: Notifications that it keeps for each of these.
        notifications_per_hour: Notifications to one player, per connection.
        broadcasts_per_hour: Notifications to everyone.
        connects_per_hour: Streams opened, per connection.
        back_within_s: How soon all are back after they were cut off at once.

    """

    players: float = 10
    kept: float = 50
    notifications_per_hour: float = 2
    broadcasts_per_hour: float = 6
    connects_per_hour: float = 2
    back_within_s: float = 120


@dataclasses.dataclass(frozen=True)
class Machines:
    """
    What a deployment runs on, and how far it is used.

    Args:
        node_cores: Cores of a node's machine, each for one worker.
        node_gib: Its memory.
        store_gib: Memory of the machine of a shard.
        store_cores: Its cores: one executes commands, one syncs and rewrites.
        replicas: Replicas of each shard, on machines of their own.
        spare_nodes: Nodes that may be missing.
        busy: Share of a core that is used at the stated rates, at most.
        storm_busy: The same while all come back.
        full: Share of a machine's memory that is used. A store needs the rest while it
            rewrites its file.
        connections_per_worker: As many as the limit of open files allows.
        core_hour: Price of a core, in dollars.
        gib_hour: Price of a GiB of memory.
        sent_gib: Price of a GiB that is sent to the internet.

    """

    node_cores: int = 8
    node_gib: float = 16
    store_gib: float = 64
    store_cores: int = 2
    replicas: int = 1
    spare_nodes: int = 1
    busy: float = 0.5
    storm_busy: float = 0.9
    full: float = 0.5
    connections_per_worker: int = 50_000
    core_hour: float = 0.04
    gib_hour: float = 0.005
    sent_gib: float = 0.05


class Cpu(NamedTuple):
    """CPU seconds, of all nodes and of all shards."""

    nodes: float
    shards: float


class Memory(NamedTuple):
    """Bytes, of all workers, of the kernel below them, and of all shards."""

    workers: float
    kernel: float
    shards: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    What a deployment needs.

    `workers_for` and `shards_for` say how many each demand takes; the largest decides.
    """

    connections: int
    workers: int
    nodes: int
    shards: int
    workers_for: dict[str, float]
    shards_for: dict[str, float]
    cpu: Cpu
    """Cores that are busy at the stated rates."""
    memory: Memory
    back_s: float
    """How soon all are back after they were cut off at once."""
    broadcast_s: float
    """How long a broadcast takes until it is written to the last reader."""
    sent_mbit_s: float
    """What the nodes send at the stated rates."""
    broadcast_mbit_s: float
    """What they send while a broadcast is written."""
    dollars: float
    """A month."""

    @property
    def workers_decided_by(self) -> str:
        return max(self.workers_for, key=lambda name: self.workers_for[name])

    @property
    def shards_decided_by(self) -> str:
        return max(self.shards_for, key=lambda name: self.shards_for[name])


def predict_cpu(
    costs: Costs,
    *,
    seconds: float = 0,
    workers: int = 0,
    shards: int = 1,
    connections: float = 0,
    connects: float = 0,
    storms: float = 0,
    publishes: float = 0,
    deliveries: float = 0,
    broadcast_deliveries: float = 0,
) -> Cpu:
    """
    Return the CPU time that so many operations take within a time.

    Args:
        costs: What each costs.
        seconds: The time, in which `workers` and `connections` idle.
        workers: Number of workers.
        shards: Number of shards, to each of which they are connected.
        connections: Number of open connections.
        connects: Streams opened.
        storms: Readers that come back at once, and catch up.
        publishes: Requests that store a notification for one player.
        deliveries: Deliveries of these.
        broadcast_deliveries: Deliveries of notifications to everyone.

    """
    nodes = (
        (costs.worker_idle_us * workers + costs.idle_us * connections) * seconds
        + costs.connect_us * connects
        + costs.storm_us * storms
        + costs.publish_us * publishes
        + costs.delivery_us * deliveries
        + costs.broadcast_us * broadcast_deliveries
    )
    idle_store_us = costs.worker_idle_store_us * workers * shards
    of_shards = (
        (idle_store_us + costs.idle_store_us * connections) * seconds
        + costs.connect_store_us * connects
        + costs.storm_store_us * storms
        + costs.publish_store_us * publishes
    )
    return Cpu(nodes * US, of_shards * US)


def predict_memory(
    costs: Costs,
    *,
    workers: int,
    connections: float,
    supervisors: int = 0,
    players: float = 0,
    notifications: float = 0,
) -> Memory:
    """Return the memory of so many workers, connections, players and notifications."""
    return Memory(
        costs.worker_bytes * workers
        + costs.supervisor_bytes * supervisors
        + costs.connection_bytes * connections,
        costs.socket_bytes * connections,
        costs.lease_bytes * connections
        + costs.player_bytes * players
        + costs.notification_bytes * notifications,
    )


def plan(connections: int, costs: Costs, rates: Rates, machines: Machines) -> Plan:
    """
    Return what a deployment for so many connections needs.

    Raises:
        ValueError: No shard has time for as many workers.

    """
    per_s = connections / 3600
    notifications = rates.notifications_per_hour * per_s
    broadcast_deliveries = rates.broadcasts_per_hour * per_s
    steady = predict_cpu(
        costs,
        seconds=1,
        connections=connections,
        connects=rates.connects_per_hour * per_s,
        publishes=notifications,
        deliveries=notifications,
        broadcast_deliveries=broadcast_deliveries,
    )
    storm = predict_cpu(costs, storms=connections)
    players = connections * rates.players
    stored = predict_memory(
        costs,
        workers=0,
        connections=connections,
        players=players,
        notifications=players * rates.kept,
    )
    worker_busy = machines.busy - costs.worker_idle_us * US
    storm_s = rates.back_within_s * machines.storm_busy
    node_bytes = machines.node_gib * GIB * machines.full - costs.supervisor_bytes
    connection_bytes = costs.connection_bytes + costs.socket_bytes
    per_core = node_bytes / machines.node_cores - costs.worker_bytes
    workers_for = {
        "rates": steady.nodes / worker_busy,
        "storm": storm.nodes / storm_s,
        "memory": connections * connection_bytes / per_core,
        "open files": connections / machines.connections_per_worker,
    }
    workers = max(1, math.ceil(max(workers_for.values())))
    nodes = math.ceil(workers / machines.node_cores)
    shard_busy = machines.busy - costs.worker_idle_store_us * US * workers
    if shard_busy <= 0:
        raise ValueError(
            f"{workers:,} workers without load keep a shard busy for more than "
            f"{machines.busy:.0%}: use fewer, with more connections each"
        )
    shards_for = {
        "rates": steady.shards / shard_busy,
        "storm": storm.shards / storm_s,
        "memory": stored.shards / (machines.store_gib * GIB * machines.full),
    }
    shards = max(1, math.ceil(max(shards_for.values())))
    if shards > 1:
        shards = max(shards, PRIMARIES_MIN)
    # The spare nodes are not counted on: one of all may be missing.
    idling = predict_cpu(costs, seconds=1, workers=workers, shards=shards)
    cpu = Cpu(steady.nodes + idling.nodes, steady.shards + idling.shards)
    all_nodes = nodes + machines.spare_nodes
    broadcast_s = connections * costs.broadcast_us * US / workers
    # So many bytes a second, until the last reader has it.
    burst = connections * costs.delivery_wire_bytes / broadcast_s if broadcast_s else 0
    sent = (
        costs.idle_wire_bytes * connections
        + costs.connect_wire_bytes * rates.connects_per_hour * per_s
        + costs.delivery_wire_bytes * (notifications + broadcast_deliveries)
    )
    resident = predict_memory(
        costs,
        workers=workers,
        supervisors=nodes if workers > nodes else 0,
        connections=connections,
    )
    return Plan(
        connections=connections,
        workers=workers,
        nodes=all_nodes,
        shards=shards,
        workers_for=workers_for,
        shards_for=shards_for,
        cpu=cpu,
        memory=Memory(resident.workers, resident.kernel, stored.shards),
        back_s=max(storm.nodes / workers, storm.shards / shards) / machines.storm_busy,
        broadcast_s=broadcast_s,
        sent_mbit_s=sent * 8 / 1e6,
        broadcast_mbit_s=burst * 8 / 1e6,
        dollars=_dollars(all_nodes, shards, sent, machines),
    )


def _dollars(nodes: int, shards: int, sent: float, machines: Machines) -> float:
    stores = shards * (1 + machines.replicas)
    cores = nodes * machines.node_cores + stores * machines.store_cores
    gib = nodes * machines.node_gib + stores * machines.store_gib
    hourly = cores * machines.core_hour + gib * machines.gib_hour
    sent_gib = sent * 3600 * HOURS_PER_MONTH / GIB
    return hourly * HOURS_PER_MONTH + sent_gib * machines.sent_gib


class Input(NamedTuple):
    """A cost, and where it comes from."""

    name: str
    value: float
    source: str


_NUMBER = re.compile(r"-?[\d,]+(?:\.\d+)?")

_OF_RESULTS: Final = {
    "connection_bytes": ("Opening 10,000 connections over ws", "RSS when idle, KiB"),
    "connect_us": ("Opening 10,000 connections over ws", "CPU per connect, µs"),
    "connect_store_us": ("Opening 10,000 connections over ws", "CPU of the store, µs"),
    "idle_us": ("Pages beside 1 broadcasts per second to 10,000", "core at rest, %"),
    "storm_us": ("10,000 readers cut off at once", "CPU per reader, µs"),
    "publish_us": ("Storing notifications of 200 bytes, 1 per", "CPU each, µs"),
    "publish_store_us": (
        "Storing notifications of 200 bytes, 1 per",
        "CPU of the store, µs",
    ),
    "delivery_us": ("1,000 messages per second, each", "CPU per message, µs"),
    "broadcast_us": (
        "One message of 200 bytes to everyone: 10,000 readers over ws",
        "CPU per delivery, µs",
    ),
}
"""The heading of a table of ``RESULTS.md`` begins so; the column."""

_FACTORS: Final = {
    "connection_bytes": 1024.0,
    # Percent of a core for 10,000 connections, as µs a second for each.
    "idle_us": 1e6 / 100 / 10_000,
}


def figure(results: str, heading: str, column: str) -> float:
    """
    Return streamer's figure of a table in ``RESULTS.md``.

    Args:
        results: The text of the page.
        heading: What the heading of the table begins with.
        column: The heading of the column.

    Raises:
        KeyError: There is no such table, or no such column.

    """
    for section in results.split("\n## ")[1:]:
        if not section.startswith(heading):
            continue
        heads, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("| ")
        ]
        for cells in rows:
            if cells[0] == "streamer" and column in heads:
                number = _NUMBER.search(cells[heads.index(column)])
                if number is not None:
                    return float(number[0].replace(",", ""))
    raise KeyError(f"RESULTS.md has no figure {column!r} below {heading!r}")


def inputs(results: str, measured: dict[str, Any]) -> list[Input]:
    """Return the costs: those of ``RESULTS.md``, the others of ``capacity.json``."""
    found = {
        name: Input(
            name,
            figure(results, heading, column) * _FACTORS.get(name, 1.0),
            f"RESULTS.md, “{heading} …”, {column}",
        )
        for name, (heading, column) in _OF_RESULTS.items()
    }
    here = f"capacity.json, {measured['when']}"
    for name, value in measured["costs"].items():
        found.setdefault(name, Input(name, value, here))
    found["connect_wire_bytes"] = Input(
        "connect_wire_bytes", CONNECT_WIRE_BYTES, "assumed: 500 bytes in five packets"
    )
    # A reader that comes back costs the store a connect, and the read of what it has
    # missed: three notifications, as in the table of `storm_us`.
    replayed_us = figure(results, "1,000 readers catch up", "CPU of the store, µs")
    found["storm_store_us"] = Input(
        "storm_store_us",
        found["connect_store_us"].value + 3 * replayed_us,
        "connect_store_us, and three replayed notifications of RESULTS.md",
    )
    return [found[field.name] for field in dataclasses.fields(Costs)]


def costs_of(found: Sequence[Input]) -> Costs:
    return Costs(**{each.name: each.value for each in found})

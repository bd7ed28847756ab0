"""
Usage of processes as the kernel reports it: CPU time, memory, connections.

Knows /proc, and which programs are stores. A server is the process that was started and
all of its descendants; its store is recognized by its name. Also assigns cores.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Usage",
    "connections",
    "cores",
    "cpu_s",
    "family",
    "measure",
    "pin",
    "private_bytes",
    "rss_bytes",
]

STORES = {"valkey-server", "redis-server"}
_NS = 1e9
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ESTABLISHED = "01"


class Usage(NamedTuple):
    """
    CPU seconds so far and resident bytes of a server and of its store, and the numbers
    of their processes; 0 processes were not measured.
    """

    server_cpu_s: float
    store_cpu_s: float
    server_rss: int
    store_rss: int
    server_count: int = 0
    store_count: int = 0


class Family(NamedTuple):
    """The processes of a server and of its store."""

    server: list[int]
    store: list[int]


def family(roots: list[int]) -> Family:
    """Return the living processes among `roots` and their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := _parent(int(entry.name))):
            children.setdefault(parent, []).append(int(entry.name))
    members = Family([], [])
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, ())
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            (members.store if name in STORES else members.server).append(pid)
    return members


def measure(roots: list[int]) -> Usage:
    """Return the usage of `roots` and their descendants so far."""
    server, store = family(roots)
    return Usage(
        sum(map(cpu_s, server)),
        sum(map(cpu_s, store)),
        sum(map(rss_bytes, server)),
        sum(map(rss_bytes, store)),
        len(server),
        len(store),
    )


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process."""
    total_ns = 0
    # `schedstat` counts nanoseconds; `stat` counts ticks of 10 ms.
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / _NS


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def private_bytes(pid: int) -> int:
    """
    Return the part of the resident memory that no other process shares.

    The rest is mostly code, which exists once however many processes run it. 0 if the
    process has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    private = [line for line in lines if line.startswith("Private_")]
    return sum(int(line.split()[1]) for line in private) * 1_024


def connections(pid: int, port: int) -> int:
    """Return how many open connections to a local port a process holds."""
    established = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                established.add(f"socket:[{inode}]")
    held = 0
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            held += os.readlink(descriptor) in established
    return held


def cores() -> tuple[set[int], set[int]]:
    """Return the cores for servers and those for the load and the stores."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        return set(mine), set(mine)
    return {mine[0]}, set(mine[1:])


def pin(roots: list[int]) -> None:
    """Move servers to the first core and their stores to the others."""
    for_servers, for_load = cores()
    server, store = family(roots)
    for pids, where in ((server, for_servers), (store, for_load)):
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.name), where)


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])

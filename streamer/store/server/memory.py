"""
How much memory the embedded store may use.

Decides the default. Knows where Linux states the limits of a cgroup, of version 1 and
2, and the memory of the machine. Knows nothing of the store.

A store without a limit grows until the kernel kills it, and is killed again by the
first page after its restart. A limit makes it refuse publishes instead. Half of what
there is leaves the rest to the copy of changed pages while the store rewrites its log,
to its buffers, and to the system.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["LIMIT_MIN", "available_bytes", "default_limit"]

MIB: Final = 1_048_576
LIMIT_MIN: Final = 32 * MIB
"""The least default limit. An empty store uses about 2 MiB."""

PROCESS_BYTES: Final = 80 * MIB
"""What a process of the server takes, apart from its connections."""

UNLIMITED_MIN: Final = 1 << 60
"""Version 1 states the largest number of whole pages for no limit."""


def default_limit(available: int, *, processes: int) -> int:
    """
    Return the limit of the embedded store in bytes.

    Args:
        available: The memory that the store shares with `processes`, in bytes.
        processes: Number of processes of the server beside the store.

    """
    return max(LIMIT_MIN, (available - processes * PROCESS_BYTES) // 2)


def available_bytes(root: Path = Path("/")) -> int:
    """Return the smaller of the machine's memory and the limits of our cgroups."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the cgroups of this process and of those that contain it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # Not Linux.
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be that of the host, and its own cgroup the mount.
        folder = mount / path.lstrip("/")
        while True:
            if limit := _limit_in(folder / name):
                yield limit
            if folder == mount or mount not in folder.parents:
                break
            folder = folder.parent


def _limit_in(file: Path) -> int | None:
    """Return the limit that a file states; None if it states none."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    if not text.isascii() or not text.isdigit():
        return None  # "max" in version 2.
    limit = int(text)
    return limit if 0 < limit < UNLIMITED_MIN else None

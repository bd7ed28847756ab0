"""
What a peer is: something that can be started, told from, and spoken to.

Knows processes, ports and how requests are written. Knows nothing of any one server.
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
from typing import ClassVar, Literal, NamedTuple

from ..load.senders import NOW, PLAYER, SEQ
from ..run.processes import Usage, measure, pin

__all__ = [
    "CACHE",
    "PLAYER_NAME",
    "Absent",
    "Parts",
    "Peer",
    "Setup",
    "Transport",
    "free_port",
    "get",
    "player_name",
    "post",
    "text",
    "upgrade",
]

Transport = Literal["ws", "sse"]
Parts = list[bytes | str]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = CACHE / "streamer-bench"
"""Where peers are installed that no package manager of the system has."""

START_S = 20.0
STOP_S = 15.0
PLAYER_NAME: Parts = [b"p", PLAYER]

_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)

_WIDTHS = {NOW: 19, PLAYER: 7, SEQ: 10}


class Absent(Exception):
    """The peer is not installed. Says which line installs it."""


class Setup(NamedTuple):
    """What a server has to make room for."""

    connections: int = 1_000
    players: int = 1
    folder: Path = Path("/tmp")
    env: tuple[tuple[str, str], ...] = ()
    stored: bool = False
    """Whether the question needs a store, from peers that have none of their own."""
    publisher: bool = False
    """Whether there shall be a second node on the same store to publish on."""


class Peer:
    """A server of one kind. `start` it before anything else; `stop` it always."""

    name: ClassVar[str]
    title: ClassVar[str]
    does: ClassVar[str]
    """What a reader of the figures has to know about it."""
    transports: ClassVar[frozenset[str]] = frozenset({"ws", "sse"})

    def __init__(self) -> None:
        self.address = ("127.0.0.1", 0)
        self.roots: list[int] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def require(self) -> None:
        """
        Check that it is there.

        Raises:
            Absent: It is not.

        """

    def start(self, setup: Setup) -> None:
        raise NotImplementedError

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        """Return what readers say first, one per player."""
        raise NotImplementedError

    def ready(self, transport: Transport) -> bytes:
        """Return what a reader has been told once messages will reach it."""
        return b""

    def publish(self, size: int) -> list[Parts]:
        """Return requests that publish `size` bytes of text to `PLAYER_NAME`."""
        raise NotImplementedError

    def broadcast(self, size: int, readers: int) -> tuple[list[Parts], int]:
        """
        Return requests that publish a text to all of so many readers.

        And of how many players they have to be: one, where a channel is all there is.
        """
        return self.publish(size), 1

    def publish_stored(self, size: int, players: int, batch: int) -> list[Parts]:
        """Return requests that store a text, for `batch` players each."""
        raise Absent(f"{self.title} stores nothing")

    def page(self, number: int, *, etag: str = "") -> bytes:
        """Return a request for a player's first page."""
        raise Absent(f"{self.title} has no pages")

    def publish_apart(
        self, size: int, players: int, per_request: int
    ) -> tuple[list[Parts], int]:
        """Return requests to one player after the other, and how many each reaches."""
        return self.publish(size), 1

    @property
    def publisher(self) -> tuple[str, int]:
        """Where to publish, if that is another node."""
        return self.address

    def usage(self) -> Usage:
        return measure(self.roots)

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
        self.roots = []

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        env: dict[str, str] | None = None,
        *,
        measured: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a process that `stop` ends; `usage` counts it if it is measured."""
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
        if measured:
            self.roots.append(process.pid)
        return process

    def _wait_until_open(
        self,
        path: str = "",
        folder: Path | None = None,
        address: tuple[str, int] | None = None,
    ) -> None:
        """Wait until the port is open, and `path` answers 200 if there is one."""
        address = address or self.address
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            if any(process.poll() is not None for process in self._processes):
                break
            if _answers(address, path):
                return
            time.sleep(0.02)
        said = (folder / "out.log").read_text()[-2_000:] if folder else ""
        raise RuntimeError(f"{self.name} did not start: {said}")


def _die_with_parent() -> None:
    """Let the kernel end this process with the bench, however that ends."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def player_name(number: int) -> str:
    """Return the name that `PLAYER_NAME` writes for a number."""
    return f"p{number:07d}"


def text(size: int) -> Parts:
    """Return a text of `size` bytes: the mark, when it was due, its number, padding."""
    padding = size - 1 - _WIDTHS[NOW] - 1 - _WIDTHS[SEQ]
    assert padding >= 0, "a text has at least 31 bytes"
    return [b"#", NOW, b".", SEQ, b"x" * padding]


def post(path: Parts, body: Parts, headers: Parts | None = None) -> Parts:
    """Return a POST; `headers` end each of their lines."""
    length = sum(_WIDTHS[p] if isinstance(p, str) else len(p) for p in body)
    return [
        b"POST ",
        *path,
        b" HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n" % length,
        *(headers or []),
        b"\r\n",
        *body,
    ]


def get(path: str, headers: str = "") -> bytes:
    """Return a GET; `headers` end each of their lines."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()


def upgrade(path: str, headers: str = "") -> bytes:
    """Return a WebSocket handshake."""
    return get(
        path,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}",
    )


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

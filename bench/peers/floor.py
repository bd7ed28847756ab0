"""The floor: a C program that calls ``send()`` in a loop, built on the spot."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from streamer.bench.requests import (
    PLAYER_NAME,
    RequestParts,
    get,
    player_name,
    post,
    text,
    upgrade,
)
from streamer.bench.target import Requirements, Transport

from .base import CACHE, NotInstalled, Peer, free_port

__all__ = ["Floor"]

SOURCE = Path(__file__).with_name("floor.c")


class Floor(Peer):
    """Sends each posted message to all connections; has one channel and no HTTP."""

    name = "floor"
    title = "send() in a C loop"
    does = "one channel, nothing else: the cost of the kernel"

    @classmethod
    def require(cls) -> None:
        if shutil.which("cc") is None:
            raise NotInstalled("apt-get install gcc libc6-dev")

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        self.run([str(_build()), str(self.address[1])], folder)
        self._wait_until_open(folder=folder)

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        return [write(f"/{player_name(number)}") for number in range(players)]

    def publish(self, size: int) -> list[RequestParts]:
        return [post([b"/pub/", *PLAYER_NAME], text(size))]


def _build() -> Path:
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = CACHE / "bin" / f"floor-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
    return program

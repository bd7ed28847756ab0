"""The `ws` package on Node.js, with the broadcast loop of its own documentation."""

from __future__ import annotations

import shutil
from pathlib import Path

from streamer.bench.requests import (
    PLAYER_NAME,
    RequestParts,
    player_name,
    post,
    text,
    upgrade,
)
from streamer.bench.target import Requirements, Transport

from .base import CACHE, NotInstalled, Peer, free_port

__all__ = ["NodeWs"]

VERSION = "8.18.3"
FOLDER = CACHE / "ws"


class NodeWs(Peer):
    """A map from name to connections; keeps nothing, checks nothing."""

    name = "ws"
    title = f"Node.js, ws {VERSION}"
    does = "in memory, nothing kept, no tokens, no limits"
    transports = frozenset({"ws"})

    @classmethod
    def require(cls) -> None:
        if shutil.which("node") is None or not (FOLDER / "node_modules/ws").exists():
            raise NotInstalled(f"npm install --prefix {_tilde(FOLDER)} ws@{VERSION}")

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        script = Path(__file__).with_name("ws_server.js")
        self.run(
            ["node", str(script), str(self.address[1])],
            folder,
            {"NODE_PATH": str(FOLDER / "node_modules")},
        )
        self._wait_until_open(folder=folder)

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        return [upgrade(f"/ws/{player_name(number)}") for number in range(players)]

    def publish(self, size: int) -> list[RequestParts]:
        return [post([b"/pub/", *PLAYER_NAME], text(size))]


def _tilde(path: Path) -> str:
    home = str(Path.home())
    return str(path).replace(home, "~", 1)

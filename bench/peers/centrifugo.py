"""
Centrifugo: the widely used real-time server in Go, with its unidirectional transports.

The bench uses it without tokens. With a store it runs on Redis, as several nodes do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
from .stores import start_store

__all__ = ["Centrifugo"]

PACKAGE = "github.com/centrifugal/centrifugo/v6@latest"


class Centrifugo(Peer):
    """One node; it keeps no messages."""

    name = "centrifugo"
    title = "Centrifugo"
    does = "nothing kept, no tokens; unicast through Redis"

    def __init__(self) -> None:
        super().__init__()
        self._publisher: tuple[str, int] | None = None

    @classmethod
    def require(cls) -> None:
        if _program() is None:
            raise NotInstalled(f"GOBIN={CACHE / 'bin'} go install {PACKAGE}")

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        folder.mkdir(parents=True, exist_ok=True)
        free = {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
        }
        config: dict[str, Any] = {
            "http_api": {"insecure": True},
            "client": {"insecure": True, "allowed_origins": ["*"]},
            "channel": {"without_namespace": free},
            "uni_websocket": {"enabled": True},
            "uni_sse": {"enabled": True},
            "usage_stats": {"disabled": True},
            "log": {"level": "error"},
        }
        if requirements.stored:
            url = start_store(self, folder / "store")
            config["engine"] = {"type": "redis", "redis": {"address": url}}
        self._launch(config, folder, self.address)
        if requirements.publisher and requirements.stored:
            self._publisher = ("127.0.0.1", free_port())
            self._launch(config, folder / "p", self._publisher, measured=False)

    def _launch(
        self,
        config: dict[str, Any],
        folder: Path,
        address: tuple[str, int],
        *,
        measured: bool = True,
    ) -> None:
        server = {"address": address[0], "port": str(address[1])}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.json"
        path.write_text(json.dumps({**config, "http_server": server}))
        program = [str(_program()), "--config", str(path)]
        self.run(program, folder, measured=measured)
        self._wait_until_open(folder=folder, address=address)

    @property
    def publisher(self) -> tuple[str, int]:
        return self._publisher or self.address

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        path = f"/connection/uni_{'websocket' if transport == 'ws' else 'sse'}"
        return [
            write(f"{path}?cf_connect={_connect(player_name(number))}")
            for number in range(players)
        ]

    def ready(self, transport: Transport) -> bytes:
        return b'"connect"'

    def publish(self, size: int) -> list[RequestParts]:
        body: RequestParts = [
            b'{"channel":"',
            *PLAYER_NAME,
            b'","data":"',
            *text(size),
            b'"}',
        ]
        return [post([b"/api/publish"], body, [b"Content-Type: application/json\r\n"])]


def _connect(channel: str) -> str:
    return quote(json.dumps({"subs": {channel: {}}}, separators=(",", ":")))


def _program() -> str | Path | None:
    built = CACHE / "bin" / "centrifugo"
    return built if built.exists() else shutil.which("centrifugo")

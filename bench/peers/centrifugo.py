"""
Centrifugo: the widely used real-time server in Go, with what streamer guarantees.

It runs on Redis, on a Valkey that syncs each write as streamer's does. Channels keep a
history, and a reader that comes back gets what it missed. Each connection has a JWT,
which names the channel that it gets; each publish has the API key. It is built to use
all cores; here it has one, as all servers have.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from joserfc import jwt
from joserfc.jwk import OctKey

from streamer.bench.load.resuming import Dialect
from streamer.bench.requests import (
    PLAYER_NAME,
    RequestParts,
    get,
    groups,
    numbered_text,
    player_name,
    post,
    text,
    upgrade,
)
from streamer.bench.target import Requirements, Resuming, Transport

from .base import CACHE, NotInstalled, Peer, free_port
from .stores import start_store, used_bytes

__all__ = ["Centrifugo"]

PACKAGE = "github.com/centrifugal/centrifugo/v6@latest"
NAMESPACE = "player"
HISTORY = {"history_size": 100, "history_ttl": "24h", "force_recovery": True}
TOKEN_TTL_S = 86_400

_EPOCH, _OFFSET = b"@EPOCH@", b"@OFFSET@"
_DIALECT = Dialect(
    opened=b'{"connect"',
    position={_EPOCH: rb'"epoch":"([^"]+)"', _OFFSET: rb'"offset":(\d+)'},
    gap=b'"was_recovering":true,"recovered":false',
)


class Centrifugo(Peer):
    """One node, or two where a scenario has a node that publishes."""

    name = "centrifugo"
    title = "Centrifugo"
    does = (
        "verifies tokens, stores with fsync, resumes; presence where connects are "
        "measured; no inbox, no read marks, no limits"
    )
    stores = True

    def __init__(self) -> None:
        super().__init__()
        self._publisher: tuple[str, int] | None = None
        self._store_url = ""
        self._key, self._secret = secrets.token_hex(16), secrets.token_hex(32)
        self._signing_key = OctKey.import_key(self._secret)
        # Idempotency keys are for this measurement alone.
        self._run = secrets.token_hex(4)

    @classmethod
    def require(cls) -> None:
        if _program() is None:
            raise NotInstalled(f"GOBIN={CACHE / 'bin'} go install {PACKAGE}")

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        self._store_url = start_store(self, folder / "store")
        channels = {"name": NAMESPACE, **HISTORY, "presence": requirements.presence}
        config: dict[str, Any] = {
            "http_api": {"key": self._key},
            "client": {
                "allowed_origins": ["*"],
                "token": {"hmac_secret_key": self._secret},
            },
            "channel": {"namespaces": [channels]},
            "uni_websocket": {"enabled": True},
            "uni_sse": {"enabled": True},
            "usage_stats": {"disabled": True},
            "log": {"level": "error"},
            "engine": {"type": "redis", "redis": {"address": self._store_url}},
        }
        self._launch(config, folder / "node", self.address)
        if requirements.publisher:
            self._publisher = ("127.0.0.1", free_port())
            self._launch(config, folder / "p", self._publisher, publishes=True)

    def _launch(
        self,
        config: dict[str, Any],
        folder: Path,
        address: tuple[str, int],
        *,
        publishes: bool = False,
    ) -> None:
        server = {"address": address[0], "port": str(address[1])}
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.json"
        path.write_text(json.dumps({**config, "http_server": server}))
        program = [str(_program()), "--config", str(path)]
        self.run(program, folder, {"GOMAXPROCS": "1"}, publishes=publishes)
        self._wait_until_open(folder=folder, address=address)

    @property
    def publisher(self) -> tuple[str, int]:
        return self._publisher or self.address

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        return [
            write(_path(transport, {"token": self._token(number)}))
            for number in range(players)
        ]

    def resuming_readers(self, players: int) -> Resuming:
        firsts, resumes = [], []
        for number in range(players):
            connect: dict[str, Any] = {"token": self._token(number)}
            firsts.append(upgrade(_path("ws", connect)))
            epoch, offset = _EPOCH.decode(), _OFFSET.decode()
            position = {"recover": True, "epoch": epoch, "offset": offset}
            connect["subs"] = {_channel(number): position}
            # The offset is a number, which has no quotation marks.
            path = _path("ws", connect).replace(f"%22{offset}%22", offset)
            resumes.append(upgrade(path))
        return Resuming(_DIALECT, firsts, resumes)

    def store_bytes(self) -> int:
        return used_bytes(self._store_url)

    def ready(self, transport: Transport) -> bytes:
        return b'"connect"'

    def publish(self, size: int) -> list[RequestParts]:
        to = [b'{"channel":"%b:' % NAMESPACE.encode(), *PLAYER_NAME]
        return [self._post("publish", [*to, b'","data":"', *text(size), b'"}'])]

    def publish_many(
        self, size: int, players: int, per_request: int, *, number: int | None = None
    ) -> list[RequestParts]:
        parts = numbered_text(size, number)
        requests = []
        for group in groups(players, per_request):
            names = json.dumps([_channel(i) for i in group]).encode()
            key = b""
            if number is not None:
                name = f"{self._run}-{number}-{group.start}".encode()
                key = b'"idempotency_key":"%b",' % name
            body: RequestParts = [b'{"channels":%b,%b"data":"' % (names, key)]
            requests.append(self._post("broadcast", [*body, *parts, b'"}']))
        return requests

    def publish_separately(
        self, size: int, players: int, per_request: int
    ) -> tuple[list[RequestParts], int]:
        if per_request == 1:
            return self.publish(size), 1
        return self.publish_many(size, players, per_request), per_request

    def _token(self, number: int) -> str:
        claims = {
            "sub": player_name(number),
            "exp": int(time.time()) + TOKEN_TTL_S,
            "channels": [_channel(number)],
        }
        return jwt.encode({"alg": "HS256"}, claims, self._signing_key)

    def _post(self, method: str, body: RequestParts) -> RequestParts:
        head = f"Content-Type: application/json\r\nX-API-Key: {self._key}\r\n"
        return post([f"/api/{method}".encode()], body, [head.encode()])


def _channel(number: int) -> str:
    return f"{NAMESPACE}:{player_name(number)}"


def _path(transport: Transport, connect: dict[str, Any]) -> str:
    name = "websocket" if transport == "ws" else "sse"
    text = json.dumps(connect, separators=(",", ":"))
    # Placeholders stay as they are.
    return f"/connection/uni_{name}?cf_connect={quote(text, safe='@')}"


def _program() -> str | Path | None:
    built = CACHE / "bin" / "centrifugo"
    return built if built.exists() else shutil.which("centrifugo")

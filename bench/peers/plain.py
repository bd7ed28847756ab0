"""Starlette on uvicorn, written in the plain way, with a store where it needs one."""

from __future__ import annotations

import sys
import time
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
from streamer.bench.target import Requirements, Transport, Unsupported

from .base import Peer, free_port
from .stores import start_store

__all__ = ["Plain"]

SECRET = "a secret of thirty-two bytes, or more"
TOKEN_TTL_S = 86_400


class Plain(Peer):
    """A small application; see `plain_app`."""

    name = "starlette"
    title = "Starlette on uvicorn"
    does = "in memory, nothing kept, no tokens, no limits"

    def start(self, requirements: Requirements, folder: Path) -> None:
        self.address = ("127.0.0.1", free_port())
        env = {"BENCH_SECRET": SECRET, "BENCH_STORE": ""}
        if requirements.stored:
            env["BENCH_STORE"] = start_store(self, folder / "store")
        command = [sys.executable, "-m", "uvicorn", "bench.peers.plain_app:app"]
        command += ["--port", str(self.address[1]), "--loop", "uvloop"]
        command += ["--http", "httptools", "--ws", "websockets-sansio"]
        command += ["--no-access-log", "--log-level", "warning", "--backlog", "4096"]
        command += ["--ws-ping-interval", "60", "--timeout-keep-alive", "600"]
        command += ["--app-dir", str(Path(__file__).parents[2])]
        self.run(command, folder, env)
        self._wait_until_open(folder=folder)

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        return [
            write(f"/{transport}/{player_name(number)}") for number in range(players)
        ]

    def ready(self, transport: Transport) -> bytes:
        return b": open" if transport == "sse" else b""

    def publish(self, size: int) -> list[RequestParts]:
        return [post([b"/pub/", *PLAYER_NAME], text(size))]

    def publish_stored(self, size: int, players: int, batch: int) -> list[RequestParts]:
        if batch > 1:
            raise Unsupported("the plain endpoint stores one at a time")
        to: RequestParts = [b'{"to":{"players":["', *PLAYER_NAME, b'"]},"body":"']
        return [post([b"/store"], [*to, *text(size), b'"}'])]

    def page(self, number: int, *, etag: str = "") -> bytes:
        condition = f"If-None-Match: {etag}\r\n" if etag else ""
        return get("/page", f"Authorization: Bearer {_token(number)}\r\n{condition}")


def _token(number: int) -> str:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    now_s = int(time.time())
    claims = {"sub": player_name(number), "aud": "demo", "iss": "streamer", "ver": 1}
    times = {"iat": now_s, "exp": now_s + TOKEN_TTL_S}
    permissions = {"permissions": ["notification:player:self:*"]}
    key = OctKey.import_key(SECRET)
    return jwt.encode({"alg": "HS256"}, {**claims, **times, **permissions}, key)

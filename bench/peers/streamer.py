"""
This server, started here or running somewhere.

Uses its command line and its store for credentials, as `streamer token` does, without
the price of a process each.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from ..load.careful import CURSOR
from ..load.senders import NOW, SEQ
from .base import (
    PLAYER_NAME,
    Absent,
    Parts,
    Peer,
    Setup,
    Transport,
    free_port,
    get,
    player_name,
    post,
    text,
    upgrade,
)

__all__ = ["Remote", "Streamer"]

TOKEN_TTL_S = 86_400
PRINT_S = 5.0
READY = {"ws": b'"type":"hello"', "sse": b"event: hello"}

_KEY = re.compile(r"^ +(sk_\S+)$", re.MULTILINE)


class Streamer(Peer):
    """One process of it on its embedded store, all features at their defaults."""

    name = "streamer"
    title = "streamer"
    does = "checks tokens, takes leases, stores with fsync, resumes"

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self.setup = Setup()
        self._tokens: list[str] = []
        self._publisher: tuple[str, int] | None = None

    def start(self, setup: Setup) -> None:
        self.setup = setup
        self.address = ("127.0.0.1", free_port())
        self._launch()
        if not self.key:
            self.key = self._printed_key(setup.folder / "out.log")

    def restart(self) -> None:
        """Kill it without a word, and start it again on what it has stored."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        self.roots = []
        self._launch()

    def _launch(self) -> None:
        setup = self.setup
        most = str(max(setup.connections + 1_000, 10_000))
        env = {
            "STREAMER_LISTENERS_PER_PLAYER_MAX": most,
            "STREAMER_CONNECTIONS_MAX": most,
            "STREAMER_CONNECTS_PER_S_MAX": "1000000",
            **dict(setup.env),
        }
        serve = [sys.executable, "-m", "streamer", "serve", "--port"]
        place = ["--data-dir", str(self.data_dir)]
        self.run([*serve, str(self.address[1]), *place], setup.folder, env)
        self._wait_until_open("/readyz", setup.folder)
        if setup.publisher:
            folder = setup.folder / "publisher"
            self._publisher = ("127.0.0.1", free_port())
            place = ["--redis", self._store_url(), "--no-background"]
            node = [*serve, str(self._publisher[1]), *place]
            self.run(node, folder, env, measured=False)
            self._wait_until_open("/readyz", folder, self._publisher)

    def _printed_key(self, log: Path) -> str:
        # It is ready a moment before it says so.
        until_s = time.monotonic() + PRINT_S
        while time.monotonic() < until_s:
            if found := _KEY.search(log.read_text()):
                return found[1]
            time.sleep(0.01)
        raise RuntimeError(f"no key was printed: {log.read_text()}")

    @property
    def data_dir(self) -> Path:
        return self.setup.folder / "data"

    def token(self, number: int) -> str:
        """Return a token of player `number`."""
        if number >= len(self._tokens):
            self._tokens = self._mint(max(number + 1, self.setup.players))
        return self._tokens[number]

    def authorization(self, number: int) -> str:
        return f"Authorization: Bearer {self.token(number)}\r\n"

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        return [
            write("/v1/stream", self.authorization(number)) for number in range(players)
        ]

    def resuming_readers(self, players: int) -> list[bytes]:
        """Return WebSocket handshakes with a place for the cursor."""
        path = "/v1/stream?cursor=" + CURSOR.decode()
        return [upgrade(path, self.authorization(number)) for number in range(players)]

    def ready(self, transport: Transport) -> bytes:
        return READY[transport]

    def publish(self, size: int) -> list[Parts]:
        to = [b'{"to":{"players":["', *PLAYER_NAME, b'"]},"body":"']
        return [self._post([*to, *text(size), b'"}'])]

    def broadcast(self, size: int, readers: int) -> tuple[list[Parts], int]:
        body = [b'{"to":{"everyone":true},"body":"', *text(size), b'"}']
        return [self._post(body)], readers

    def publish_stored(self, size: int, players: int, batch: int) -> list[Parts]:
        return (
            self.publish_many(size, players, batch) if batch > 1 else self.publish(size)
        )

    def publish_many(
        self, size: int, players: int, per_request: int, *, number: int | None = None
    ) -> list[Parts]:
        """
        Return requests that publish one text to `per_request` players each.

        Args:
            size: Of the text.
            players: How many in all.
            per_request: How many a request.
            number: Stands in the text, and makes the request one that may be
                repeated; else the number of the request stands there.

        """
        texts = text(size)
        if number is not None:
            texts[texts.index(SEQ)] = b"%010d" % number
            texts[texts.index(NOW)] = b"%019d" % time.monotonic_ns()
        requests = []
        for first in range(0, players, per_request):
            last = min(first + per_request, players)
            names = json.dumps([player_name(i) for i in range(first, last)])
            body: Parts = [b'{"to":{"players":%b},"body":"' % names.encode()]
            key = "" if number is None else f"Idempotency-Key: {number}-{first}\r\n"
            requests.append(self._post([*body, *texts, b'"}'], key))
        return requests

    def publish_apart(
        self, size: int, players: int, per_request: int
    ) -> tuple[list[Parts], int]:
        assert players % per_request == 0, "every request has to reach as many"
        return self.publish_many(size, players, per_request), per_request

    @property
    def publisher(self) -> tuple[str, int]:
        return self._publisher or self.address

    def page(self, number: int, *, etag: str = "") -> bytes:
        known = f"If-None-Match: {etag}\r\n" if etag else ""
        path = "/v1/players/me/notifications?limit=20"
        return get(path, self.authorization(number) + known)

    def store_bytes(self) -> int:
        """Return how much memory the store says that it uses."""
        return asyncio.run(self._store_bytes())

    def _post(self, body: Parts, headers: str = "") -> Parts:
        head = f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
        return post([b"/v1/notifications"], body, [(head + headers).encode()])

    def _mint(self, count: int) -> list[str]:
        return asyncio.run(self._mint_in_store(count))

    async def _mint_in_store(self, count: int) -> list[str]:
        from streamer.core.access.tokens import mint
        from streamer.model import App, Player
        from streamer.store.access.apps import Apps

        redis = self._redis()
        try:
            record = await Apps(redis).get(App("demo"))
        finally:
            await redis.close()
        assert record is not None, "a new store has the app demo"
        now_s = int(time.time())
        return [
            mint(record, Player(player_name(i)), ttl_s=TOKEN_TTL_S, now_s=now_s)
            for i in range(count)
        ]

    async def _store_bytes(self) -> int:
        redis = self._redis()
        try:
            info = bytes(await redis.call("INFO", "memory"))
        finally:
            await redis.close()
        return int(info.partition(b"used_memory:")[2].split(b"\r\n")[0])

    def _store_url(self) -> str:
        from streamer.store.server.directory import socket_path, socket_url

        return socket_url(socket_path(self.data_dir))

    def _redis(self):  # type: ignore[no-untyped-def]
        from streamer.store.client.connection import RedisConnection

        return RedisConnection(self._store_url(), name="bench")


class Remote(Streamer):
    """
    A deployment that runs already.

    Its players are p0000000, p0000001 and so on of the key's app, and its limits have
    to let them in: a fan-out opens all of its readers as one player.

    Args:
        url: Where it is; plain HTTP.
        key: A backend key.
        token_command: Prints a player's token; ``{player}`` in it is replaced. Without
            one, tokens are asked for with ``POST /v1/tokens``.
        pids: Its processes, if they are on this machine.

    """

    does = "runs already; its settings are its own"

    def __init__(self, url: str, key: str, token_command: str, pids: list[int]) -> None:
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Absent(f"{url} is no http:// URL")
        self.url = url.rstrip("/")
        self.address = (parts.hostname, parts.port or 80)
        self.key = key
        self._token_command = token_command
        self._pids = pids

    def start(self, setup: Setup) -> None:
        self.setup = setup
        self.roots = list(self._pids)

    def pin(self) -> None:
        """Leave it where it is."""

    def restart(self) -> None:
        raise Absent("a running deployment is not killed")

    def store_bytes(self) -> int:
        return 0

    def _mint(self, count: int) -> list[str]:
        players = [player_name(i) for i in range(count)]
        if self._token_command:
            return [self._command(player) for player in players]
        return [self._ask(player) for player in players]

    def _command(self, player: str) -> str:
        command = self._token_command.replace("{player}", shlex.quote(player))
        done = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().split()[-1]

    def _ask(self, player: str) -> str:
        request = urllib.request.Request(
            f"{self.url}/v1/tokens",
            json.dumps({"player": player}).encode(),
            {
                "Authorization": f"Bearer {self.key}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["token"])

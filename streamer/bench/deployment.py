"""
A running deployment of streamer, and the requests of its protocol.

Knows the paths and bodies of the native API, and how tokens for its players are
obtained.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from ..store_url import NAMESPACE, NAMESPACE_CHARS, is_namespace, parse_store_url
from .load.resuming import CURSOR
from .load.senders import NOW, SEQUENCE
from .requests import (
    PLAYER_NAME,
    RequestParts,
    get,
    player_name,
    post,
    text,
    upgrade,
)
from .target import Target, Transport, Unsupported

__all__ = ["Deployment", "StreamerTarget"]

_READY = {"ws": b'"type":"hello"', "sse": b"event: hello"}


class StreamerTarget(Target):
    """
    A streamer, wherever it runs.

    Its players are p0000000, p0000001 and so on, of the app that the key belongs to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self.store_url = ""
        """URL of its store, where that can be reached."""
        self.namespace = NAMESPACE
        """The namespace of its keys."""
        self._tokens: list[str] = []

    def mint(self, players: range) -> list[str]:
        """Return a token of each of these players."""
        raise NotImplementedError

    def token(self, number: int) -> str:
        """Return a token of player `number`."""
        if number >= len(self._tokens):
            self._tokens += self.mint(range(len(self._tokens), number + 1))
        return self._tokens[number]

    def authorization(self, number: int) -> str:
        return f"Authorization: Bearer {self.token(number)}\r\n"

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        write = upgrade if transport == "ws" else get
        self.token(players - 1)  # All of them at once.
        return [
            write("/v1/stream", self.authorization(number)) for number in range(players)
        ]

    def resuming_readers(self, players: int) -> list[bytes]:
        """Return WebSocket handshakes in which the cursor is to be filled in."""
        path = "/v1/stream?cursor=" + CURSOR.decode()
        self.token(players - 1)
        return [upgrade(path, self.authorization(number)) for number in range(players)]

    def ready(self, transport: Transport) -> bytes:
        return _READY[transport]

    def publish(self, size: int) -> list[RequestParts]:
        to = [b'{"to":{"players":["', *PLAYER_NAME, b'"]},"body":"']
        return [self._post([*to, *text(size), b'"}'])]

    def broadcast(self, size: int, readers: int) -> tuple[list[RequestParts], int]:
        body = [b'{"to":{"everyone":true},"body":"', *text(size), b'"}']
        return [self._post(body)], readers

    def publish_stored(self, size: int, players: int, batch: int) -> list[RequestParts]:
        return (
            self.publish_many(size, players, batch) if batch > 1 else self.publish(size)
        )

    def publish_many(
        self, size: int, players: int, per_request: int, *, number: int | None = None
    ) -> list[RequestParts]:
        """
        Return requests that publish one text to `per_request` players each.

        Args:
            size: Bytes of the text.
            players: Number of players in all.
            per_request: Number of players in a request.
            number: Stands in the text and in the idempotency key, so that the request
                can be repeated. None puts the number of the request into the text.

        """
        parts = text(size)
        if number is not None:
            parts[parts.index(SEQUENCE)] = b"%010d" % number
            parts[parts.index(NOW)] = b"%019d" % time.monotonic_ns()
        requests = []
        for first in range(0, players, per_request):
            last = min(first + per_request, players)
            names = json.dumps([player_name(i) for i in range(first, last)])
            body: RequestParts = [b'{"to":{"players":%b},"body":"' % names.encode()]
            key = "" if number is None else f"Idempotency-Key: {number}-{first}\r\n"
            requests.append(self._post([*body, *parts, b'"}'], key))
        return requests

    def publish_separately(
        self, size: int, players: int, per_request: int
    ) -> tuple[list[RequestParts], int]:
        assert players % per_request == 0, "every request has to reach as many"
        return self.publish_many(size, players, per_request), per_request

    def page(self, number: int, *, etag: str = "") -> bytes:
        condition = f"If-None-Match: {etag}\r\n" if etag else ""
        path = "/v1/players/me/notifications?limit=20"
        return get(path, self.authorization(number) + condition)

    def _post(self, body: RequestParts, headers: str = "") -> RequestParts:
        head = f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
        return post([b"/v1/notifications"], body, [(head + headers).encode()])


class Deployment(StreamerTarget):
    """
    A deployment that runs already. Its limits have to admit the load.

    Args:
        url: Where it is; plain HTTP.
        key: A backend key.
        token_command: Prints a player's token; ``{player}`` in it is replaced. Without
            it, tokens are requested with ``POST /v1/tokens``.
        pids: Its processes, if they are on this machine.
        store_url: Its store, for scenarios that write to that.
        namespace: The namespace of its keys.

    Raises:
        Unsupported: A URL or the namespace cannot be used.

    """

    name = "streamer"
    title = "streamer"
    does = "a running deployment, with its own settings"

    def __init__(
        self,
        url: str,
        key: str,
        *,
        token_command: str = "",
        pids: tuple[int, ...] = (),
        store_url: str = "",
        namespace: str = NAMESPACE,
    ) -> None:
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise Unsupported(f"{url} is not an http:// URL")
        self.address = (parts.hostname, parts.port or 80)
        self.roots = list(pids)
        self.key = key
        if store_url:
            try:
                parse_store_url(store_url)
            except ValueError as exc:
                raise Unsupported(f"the URL of the store {exc}") from exc
        if not is_namespace(namespace):
            raise Unsupported(f"a namespace is {NAMESPACE_CHARS}")
        self.store_url = store_url
        self.namespace = namespace
        self._url = url.rstrip("/")
        self._token_command = token_command

    def mint(self, players: range) -> list[str]:
        mint = self._run if self._token_command else self._request
        return [mint(player_name(number)) for number in players]

    def _run(self, player: str) -> str:
        command = self._token_command.replace("{player}", shlex.quote(player))
        done = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().split()[-1]

    def _request(self, player: str) -> str:
        request = urllib.request.Request(
            f"{self._url}/v1/tokens",
            json.dumps({"player": player}).encode(),
            {
                "Authorization": f"Bearer {self.key}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return str(json.load(response)["token"])
        except urllib.error.HTTPError as exc:
            raise Unsupported(f"no token for {player}: {exc.read().decode()}") from exc

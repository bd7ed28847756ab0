"""
A running deployment of streamer, and the requests of its protocol.

Knows the paths and bodies of the native API, how tokens for its players are obtained,
and what keeps a load test away from an app's own players.
"""

from __future__ import annotations

import json
import secrets
import shlex
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import Error, StoreUnavailable
from ..store_url import NAMESPACE, NAMESPACE_CHARS, is_namespace, parse_store_url
from .load.resuming import Dialect
from .own_app import OwnApp
from .requests import (
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
from .target import Requirements, Resuming, Target, Transport, Unsupported

__all__ = ["Deployment", "StreamerTarget"]

_EVERYONE = b'{"everyone":true}'
_CURSOR = b"@CURSOR@"
_DIALECT = Dialect(
    opened=b'{"type":"hello"',
    position={_CURSOR: rb'"cursor":"([^"]+)"'},
    gap=b'{"type":"gap"',
)
_READY = {"ws": b'"type":"hello"', "sse": b"event: hello"}


class StreamerTarget(Target):
    """
    A streamer, wherever it runs.

    Its players are p0000000, p0000001 and so on, after `prefix`, of the app that the
    key belongs to.
    """

    stores = True

    def __init__(self) -> None:
        super().__init__()
        self.key = ""
        self.app = "demo"
        """The app of the key."""
        self.prefix = ""
        """What the names of its players begin with."""
        self.topic = ""
        """The topic of broadcasts; empty for everyone."""
        self.ttl_s = 0
        """After how many seconds what is stored expires; 0 for never."""
        # Idempotency keys are for this measurement alone.
        self._run = secrets.token_hex(4)
        self.store_url = ""
        """URL of its store, where that can be reached."""
        self.namespace = NAMESPACE
        """The namespace of its keys."""
        self._tokens: list[str] = []

    def player(self, number: int) -> str:
        """Return the name of player `number`."""
        return self.prefix + player_name(number)

    @property
    def _ttl(self) -> bytes:
        return b'"ttl_s":%d,' % self.ttl_s if self.ttl_s else b""

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
        path = f"/v1/stream?topics={self.topic}" if self.topic else "/v1/stream"
        return [write(path, self.authorization(number)) for number in range(players)]

    def resuming_readers(self, players: int) -> Resuming:
        path = "/v1/stream"
        self.token(players - 1)
        tokens = [self.authorization(number) for number in range(players)]
        return Resuming(
            _DIALECT,
            [upgrade(path, token) for token in tokens],
            [upgrade(f"{path}?cursor={_CURSOR.decode()}", token) for token in tokens],
        )

    def ready(self, transport: Transport) -> bytes:
        return _READY[transport]

    def publish(self, size: int) -> list[RequestParts]:
        prefix = self.prefix.encode()
        to = [b'{"to":{"players":["%b' % prefix, *PLAYER_NAME, b'"]},', self._ttl]
        return [self._post([*to, b'"body":"', *text(size), b'"}'])]

    def broadcast(self, size: int, readers: int) -> tuple[list[RequestParts], int]:
        to = b'{"topic":"%b"}' % self.topic.encode() if self.topic else _EVERYONE
        body = [b'{"to":%b,%b"body":"' % (to, self._ttl), *text(size), b'"}']
        return [self._post(body)], readers

    def publish_many(
        self, size: int, players: int, per_request: int, *, number: int | None = None
    ) -> list[RequestParts]:
        parts = numbered_text(size, number)
        requests = []
        for group in groups(players, per_request):
            names = json.dumps([self.player(i) for i in group]).encode()
            body: RequestParts = [b'{"to":{"players":%b},%b' % (names, self._ttl)]
            body.append(b'"body":"')
            key = ""
            if number is not None:
                key = f"Idempotency-Key: {self._run}-{number}-{group.start}\r\n"
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

    With an app of its own it disturbs nobody. With the key of another app it writes to
    players and a topic of random names, and all of it expires.

    Args:
        url: Where it is; plain HTTP.
        key: A backend key; not with `own_app`.
        own_app: The app to make for each measurement.
        ttl_s: After how many seconds notifications expire; 0 for never.
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
        key: str = "",
        *,
        own_app: OwnApp | None = None,
        ttl_s: int = 0,
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
        self.ttl_s = ttl_s
        self._own_app = own_app
        if own_app is None:
            self.prefix = f"bench-{self._run}-"
            self.topic = f"bench/{self._run}"
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

    def start(self, requirements: Requirements, folder: Path) -> None:
        if self._own_app is None:
            return
        try:
            self.key, self.app = self._own_app.create(), self._own_app.name
        except Error as exc:
            why = exc.reason if isinstance(exc, StoreUnavailable) else str(exc)
            raise Unsupported(f"no app can be made in the store: {why}") from exc
        try:
            self._ask("/v1/unread", {"players": ["nobody"]})
        except urllib.error.HTTPError as exc:
            raise Unsupported(
                f"{self._url} does not know an app that was made in the store, so it "
                "uses another store: name that with --redis or --data-dir, or pass a "
                f"--key ({exc.code})"
            ) from exc

    def stop(self) -> None:
        if self._own_app is None:
            return
        # An impatient second Ctrl-C would leave the app behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._own_app.remove()
        except Error as exc:
            raise RuntimeError(
                f"the app {self._own_app.name} could not be removed ({exc}); a run "
                "that begins a day later does it"
            ) from exc
        finally:
            signal.signal(signal.SIGINT, before)

    def mint(self, players: range) -> list[str]:
        names = [self.player(number) for number in players]
        if self._own_app is not None:
            return self._own_app.mint(names)
        mint = self._command if self._token_command else self._request
        return [mint(name) for name in names]

    def _command(self, player: str) -> str:
        command = self._token_command.replace("{player}", shlex.quote(player))
        done = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode().split()[-1]

    def _request(self, player: str) -> str:
        try:
            order = {"player": player, "topics": [self.topic]}
            return str(self._ask("/v1/tokens", order)["token"])
        except urllib.error.HTTPError as exc:
            raise Unsupported(f"no token for {player}: {exc.read().decode()}") from exc

    def _ask(self, path: str, body: dict[str, Any]) -> Any:  # any JSON
        """Send a request with the key. Raises HTTPError."""
        request = urllib.request.Request(
            f"{self._url}{path}",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.key}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

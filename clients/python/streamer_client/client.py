"""
The client: publish, pages and marks over HTTP, and the way to a stream.

Knows the paths and bodies of the REST interface. Every request here may be repeated,
and is: reads by nature, marks because they are idempotent, a publish because it
carries an idempotency key from its first attempt on.
"""

from __future__ import annotations

import urllib.parse
import uuid
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import msgspec

from .backoff import SYSTEM_CLOCK, Clock
from .credential import Credential, TokenSource
from .http import Http, decode
from .model import Notification, Page, Property, Resource, Sent
from .stream import BUFFER_MAX, Stream

__all__ = ["Client"]


class _To(msgspec.Struct, frozen=True):
    players: tuple[str, ...]


class _Publish(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    to: _To
    type: str | None = None
    title: str | None = None
    body: str | None = None
    data: Any = msgspec.UNSET  # any JSON value
    properties: tuple[Property, ...] = ()
    priority: str | None = None
    resource: Resource | None = None


class _Published(msgspec.Struct, frozen=True):
    results: tuple[Sent, ...]


class _Mark(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    ids: tuple[str, ...] | None = None
    up_to: str | None = None
    all: bool = False


class _Marked(msgspec.Struct, frozen=True):
    unread: int


class Client:
    """
    A client of one server with one credential; an async context manager.

    Safe for concurrent use within one event loop.

    Args:
        url: The server, e.g. ``https://push.game.example``; a path in it is kept.
        token: A player's token, or a backend key.
        token_source: Gives a token when there is none or the server refuses it.
        transport: Carries the HTTP requests instead of the network.
        clock: Time and chance.

    Raises:
        ValueError: `url` is no http(s) URL, or there is no credential.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_source: TokenSource | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        scheme, _, rest = url.rstrip("/").partition("://")
        if scheme not in ("http", "https") or not rest:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self._stream_url = f"{scheme.replace('http', 'ws')}://{rest}/v1/stream"
        self._credential = Credential(token, token_source)
        self._clock = clock
        self._http = Http(
            f"{scheme}://{rest}/v1/",
            self._credential,
            transport=transport,
            clock=clock,
        )
        # Weak, because a stream that has ended is nobody's business here; a running
        # one is held by its task.
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave all streams and close all connections; legal twice."""
        for stream in list(self._streams):
            await stream.aclose()
        await self._http.aclose()

    async def publish(
        self,
        players: str | Sequence[str],
        *,
        type: str | None = None,
        title: str | None = None,
        body: str | None = None,
        data: Any = msgspec.UNSET,  # any JSON value; None is JSON's null
        properties: Mapping[str, str] | Sequence[Property] = (),
        priority: str | None = None,
        resource: Resource | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Sent, ...]:
        """
        Publish one notification to up to 1,000 players; return an id for each.

        At least one of `type`, `title`, `body` and `data` has to be given. All
        attempts of this call use one idempotency key, so it has one effect however
        many it takes. A caller who may crash in between gives a key of its own and
        repeats the call with it.

        Raises:
            Rejected: It is not allowed or not acceptable; nothing was stored.
            Unavailable: Not known to be done. Repeat with its `idempotency_key`.
        """
        key = idempotency_key if idempotency_key is not None else str(uuid.uuid4())
        names = (players,) if isinstance(players, str) else tuple(players)
        if isinstance(properties, Mapping):
            pairs = tuple(Property(key, value) for key, value in properties.items())
        else:
            pairs = tuple(properties)
        message = _Publish(
            to=_To(names),
            type=type,
            title=title,
            body=body,
            data=data,
            properties=pairs,
            priority=priority,
            resource=resource,
        )
        answer = await self._http.request(
            "POST", "notifications", content=message, idempotency_key=key
        )
        return decode(answer, _Published).results

    async def page(
        self,
        player: str = "me",
        *,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> Page:
        """
        Return notifications of `player`, newest first.

        `before` and `after` are cursors or ids, both exclusive. `Page.next` as
        `before` leads on to the older ones.
        """
        wanted = {"limit": limit, "before": before, "after": after}
        answer = await self._http.request(
            "GET",
            _inbox(player),
            params={name: str(v) for name, v in wanted.items() if v is not None},
        )
        return decode(answer, Page)

    async def get(self, id: str, player: str = "me") -> Notification:
        """
        Return one notification of `player`.

        Raises:
            Rejected: With status 404 if there is no such thing in that inbox.
        """
        answer = await self._http.request("GET", f"{_inbox(player)}/{_quote(id)}")
        return decode(answer, Notification)

    async def mark_read(
        self,
        player: str = "me",
        *,
        ids: Sequence[str] | None = None,
        up_to: str | None = None,
        all: bool = False,
    ) -> int:
        """
        Mark as read, and return how many remain unread.

        Exactly one of `ids` (at most 1,000; unknown ones are ignored), `up_to` (a
        cursor, inclusive) and `all` is given. Marking twice is marking once.

        Raises:
            ValueError: None or several of them are given.
        """
        if (ids is not None) + (up_to is not None) + all != 1:
            raise ValueError("give exactly one of ids, up_to and all")
        mark = _Mark(ids=None if ids is None else tuple(ids), up_to=up_to, all=all)
        answer = await self._http.request(
            "POST", f"{_inbox(player)}/read", content=mark
        )
        return decode(answer, _Marked).unread

    def notifications(
        self, cursor: str | None = None, *, buffer_max: int = BUFFER_MAX
    ) -> Stream:
        """
        Return the live stream of the player whose token this client has.

        `cursor` is a stored `Stream.cursor`, `Page.cursor`, an id, ``earliest``, or
        None for what comes from now on. The stream is closed with the client, or
        earlier by its own `aclose`.
        """
        stream = Stream(
            self._stream_url,
            self._credential,
            cursor=cursor,
            buffer_max=buffer_max,
            clock=self._clock,
        )
        self._streams.add(stream)
        return stream


def _inbox(player: str) -> str:
    return f"players/{_quote(player)}/notifications"


def _quote(segment: str) -> str:
    return urllib.parse.quote(segment, safe="")

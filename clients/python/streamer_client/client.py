"""
The client: what can be asked over HTTP, and the way to a stream.

Puts the parts together: requests (`http`) with a credential, what is asked with them
(`publishing`, `inbox`), and streams (`stream`). Every request here may be repeated, and
is: reads by nature, marks because they are idempotent, a publish because it carries an
idempotency key from its first attempt on.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import httpx2
import msgspec

from .backoff import SYSTEM_CLOCK, Clock
from .credential import Credential, TokenSource
from .http import Http, decode
from .inbox import Inboxes, PageCache
from .model import Ticket, Token
from .publishing import Publishing
from .stream import BUFFER_MAX, Stream

__all__ = ["Client"]


class _TokenRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    player: str
    ttl_s: int | None = None
    permissions: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


class Client(Publishing, Inboxes):
    """
    A client of one server with one credential; an async context manager.

    Safe for concurrent use within one event loop. For another player make another
    client.

    Args:
        url: The server, e.g. ``https://push.game.example``; a path in it is kept.
        token: A player's token, or a backend key.
        token_source: Gives a token when there is none, when the server refuses it, and
            on an open stream before it ends, if that is known.
        transport: Carries the HTTP requests instead of the network.
        clock: Time and chance.

    Raises:
        ValueError: `url` is no http(s) URL, or there is no credential.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Token | None = None,
        token_source: TokenSource | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        scheme, _, rest = url.rstrip("/").partition("://")
        if scheme not in ("http", "https") or not rest:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self._stream_url = f"{scheme.replace('http', 'ws')}://{rest}/v1/stream"
        self._credential = Credential(token, token_source, unix_s=clock.unix_s)
        self._clock = clock
        self._pages = PageCache()
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

    def notifications(
        self,
        cursor: str | None = None,
        *,
        topics: Sequence[str] = (),
        device: str | None = None,
        buffer_max: int = BUFFER_MAX,
    ) -> Stream:
        """
        Return the live stream of the player whose token this client has.

        `cursor` is a stored `Stream.cursor`, `Page.cursor`, an id, ``earliest``, or
        None for what comes from now on. `topics`, up to 16, come on this stream
        although the player has not joined them. `device` is a lasting name of the
        device, for what is sent to the latest one only. The stream is closed with the
        client, or earlier by its own `aclose`.
        """
        stream = Stream(
            self._stream_url,
            self._credential,
            cursor=cursor,
            topics=topics,
            device=device,
            buffer_max=buffer_max,
            clock=self._clock,
        )
        self._streams.add(stream)
        return stream

    async def mint_token(
        self,
        player: str,
        *,
        ttl_s: int | None = None,
        permissions: Sequence[str] = (),
        topics: Sequence[str] = (),
    ) -> Token:
        """
        Make a token for a player, with a backend key.

        `ttl_s` is up to a day, by default an hour. `topics` are those the player may
        ask for itself, in full or by what they begin with and a ``*``.
        """
        body = _TokenRequest(player, ttl_s, tuple(permissions), tuple(topics))
        return decode(await self._http.request("POST", "tokens", content=body), Token)

    async def ticket(self) -> Ticket:
        """Return a ticket that opens one stream of this player's, for `EventSource`."""
        return decode(await self._http.request("POST", "tickets"), Ticket)

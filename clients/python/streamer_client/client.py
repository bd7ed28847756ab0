"""
The client: HTTP requests, and streams.

Combines requests with a credential (`http`), the operations (`publishing`, `inbox`) and
streams (`stream`). Every operation is safe to repeat, and is repeated when the server
is unavailable: reads by nature, marks because they are idempotent, a publish because it
has an idempotency key from its first attempt on.
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
from .transports import Transport

__all__ = ["Client"]


class _TokenRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    player: str
    ttl_s: int | None = None
    permissions: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()


class Client(Publishing, Inboxes):
    """
    A client of one server with one credential; an async context manager.

    Safe for concurrent use within one event loop. Use a client of its own for each
    player.

    Args:
        url: The server, such as ``https://push.game.example``; a path in it is kept.
        token: A player's token, or a backend key.
        token_source: Returns a token: at first, unless `token` is passed; when the
            server refuses the current one; and on an open stream before it expires,
            if that is known.
        transport: Carries the HTTP requests instead of the network.
        clock: Time and randomness.

    Raises:
        ValueError: `url` is not an http(s) URL, or there is no credential.
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
        # Weak references: only running streams matter here, and their tasks hold those.
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all streams and connections; may be called twice."""
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
        transport: Transport = "auto",
    ) -> Stream:
        """
        Return the live stream of the player whose token this client has.

        Closing the client closes the stream, and so does `Stream.aclose`.

        Args:
            cursor: Where to begin: a stored `Stream.cursor`, a `Page.cursor`, an id,
                ``earliest``, or None for what arrives from now on.
            topics: Up to 16 topics to deliver on this stream, although the player is
                not subscribed to them. The token must allow them.
            device: A permanent name of the device, for notifications to the latest
                device only.
            buffer_max: Events to read ahead of the consumer.
            transport: ``auto`` begins with ``websocket`` and goes on to ``sse`` and
                ``poll`` where a proxy lets the one before it not through; or one of
                these three. ``poll`` requests pages every 5 s.

        Raises:
            ValueError: `buffer_max` is less than 1, or there is no such `transport`.
        """
        stream = Stream(
            self._stream_url,
            self._credential,
            self._http,
            cursor=cursor,
            topics=topics,
            device=device,
            buffer_max=buffer_max,
            transport=transport,
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
        Create a token for a player. Needs a backend key with the scope ``tokens:mint``.

        `ttl_s` is 1 to 86,400 (a day), by default 3,600. `permissions` are up to 16, by
        default everything on the player's own inbox. `topics`, up to 16, are those that
        the player may subscribe to: names, or prefixes that end in ``*``.

        Raises:
            Rejected: The key may not create such a token, or an argument is wrong.
            Unavailable: There was no usable response.
        """
        body = _TokenRequest(player, ttl_s, tuple(permissions), tuple(topics))
        return decode(await self._http.request("POST", "tokens", content=body), Token)

    async def ticket(self) -> Ticket:
        """
        Return a ticket that opens one stream of this player, for `EventSource`.

        Raises:
            Rejected: The credential is not a valid player token.
            Unavailable: There was no usable response.
        """
        return decode(await self._http.request("POST", "tickets"), Ticket)

"""
Tickets: usable once, and then valid for reconnecting the same stream.

Knows the key, its lifetimes and the scripts. Knows nothing of how a ticket reaches a
stream, nor of the rights of its caller.

A ticket is stored by its digest, as a backend key is. The key's expiry is the ticket's
lifetime::

    issue ----> unused, FIRST_MS ----> use ----> open, OPEN_MS, renewed by `keep`
                     ^                  |            |
                     +---- undo_use ----+            +--> close: CLOSED_MS

A ticket never outlives the token from which it was issued. If its node stops and does
not renew it, it expires after the remaining time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ...core.access.rights import Caller
from ..client.connection import RedisConnection, Script
from ..client.replies import ok
from .short_lived import put_until

__all__ = [
    "CLOSED_MS",
    "FIRST_MS",
    "OPEN_MS",
    "TicketStore",
    "TicketUse",
    "ticket_digest",
]

FIRST_MS: Final = 60_000
"""Time to use a ticket. A page requests one and opens its stream at once."""

OPEN_MS: Final = 180_000
"""Lifetime of the ticket of an open stream, until it is renewed."""

CLOSED_MS: Final = 120_000
"""Time to reconnect. EventSource reconnects with the URL that it has."""

_USE: Final = Script("ticket_use")
_UNDO_USE: Final = Script("ticket_undo_use")

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Caller).decode


class TicketUse(NamedTuple):
    """A use of a ticket: its caller, when its token expires, and whether the first."""

    caller: Caller
    ends_ms: int
    first: bool


def ticket_digest(text: bytes) -> bytes:
    """Return the digest by which a ticket is stored."""
    return hashlib.sha256(text).digest()


class TicketStore:
    """All tickets of the store. Every method raises Unavailable."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def issue(
        self, digest: bytes, caller: Caller, *, now_ms: int, ends_ms: int
    ) -> None:
        """Store a ticket that is issued now; its token expires at `ends_ms`."""
        first_ms = min(now_ms + FIRST_MS, ends_ms)
        kept = b"0 %d %d %b" % (first_ms, ends_ms, _encode(caller))
        await put_until(self._redis, self._keys.ticket(digest), kept, "PXAT", first_ms)

    async def use(self, digest: bytes, *, resuming: bool) -> TicketUse | None:
        """
        Use a ticket. Returns None if there is no such ticket or it was used before.

        Of several concurrent first uses one succeeds. With `resuming` the ticket may
        have been used before.
        """
        keys, args = (self._keys.ticket(digest),), (int(resuming), OPEN_MS)
        found = await self._redis.run(_USE, keys, args)
        if found is None:
            return None
        caller, ends_ms, first = found
        return TicketUse(_decode(caller), int(ends_ms), bool(first))

    async def undo_use(self, digest: bytes) -> None:
        """Undo a first use that has opened no stream."""
        await self._redis.run(_UNDO_USE, (self._keys.ticket(digest),), ())

    async def keep(self, ends_ms: Mapping[bytes, int], *, now_ms: int) -> None:
        """Renew the tickets of open streams, in one packet, none beyond its token."""
        commands = [
            ("PEXPIREAT", self._keys.ticket(digest), min(now_ms + OPEN_MS, end_ms))
            for digest, end_ms in ends_ms.items()
        ]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)

    async def close(self, digest: bytes) -> None:
        """Shorten a ticket's lifetime after its stream has closed."""
        # LT: a ticket that expires sooner, with its token, still does.
        command = ("PEXPIRE", self._keys.ticket(digest), CLOSED_MS, "LT")
        await self._redis.call(*command, write=True)

"""
Tickets as the store remembers them: used once, then good for the same stream.

Knows the hash, its times and the script that uses one. Knows nothing of how a ticket
reaches a stream, nor of what its caller may do.

A ticket is kept by its digest, as a backend key is. Its life is the key's::

    issue ----> unused, FIRST_MS ----> use ----> open, OPEN_MS, renewed by `keep`
                     ^                  |            |
                     +--- give_back ----+            +--> close: CLOSED_MS

Never does it outlive the token it was made from. Where nobody renews it, because its
node has died, it ends with the time that was left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ...core.access.rights import Caller
from ..client.connection import RedisConnection, Script
from ..client.replies import ok
from ..keys import ticket_key

__all__ = [
    "CLOSED_MS",
    "FIRST_MS",
    "OPEN_MS",
    "TicketStore",
    "TicketUse",
    "ticket_digest",
]

FIRST_MS: Final = 60_000
"""Time to use a ticket in; a page asks for one and opens its stream at once."""

OPEN_MS: Final = 180_000
"""How long an open ticket lives without being renewed."""

CLOSED_MS: Final = 120_000
"""Time to come back in; EventSource does so with the URL it was given."""

_USE: Final = Script("ticket_use")
_UNDO_USE: Final = Script("ticket_undo_use")

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Caller).decode


class TicketUse(NamedTuple):
    """A ticket that was used: for whom, until when at most, and whether at first."""

    caller: Caller
    ends_ms: int
    first: bool


def ticket_digest(text: bytes) -> bytes:
    """Return what a ticket is kept and looked up by."""
    return hashlib.sha256(text).digest()


class TicketStore:
    """Tickets by their digest. Every method raises `Unavailable`."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def issue(
        self, digest: bytes, caller: Caller, *, now_ms: int, ends_ms: int
    ) -> None:
        """Keep a ticket for its first use; it was made now and ends with its token."""
        first_ms = min(now_ms + FIRST_MS, ends_ms)
        kept = b"0 %d %d %b" % (first_ms, ends_ms, _encode(caller))
        command = ("SET", ticket_key(digest), kept, "PXAT", first_ms)
        await self._redis.call(*command, write=True)

    async def use(self, digest: bytes, *, resuming: bool) -> TicketUse | None:
        """
        Use a ticket, or return None where there is none, or it was used already.

        Of several first uses at once, one succeeds. With `resuming` it may have been
        used before.
        """
        keys, args = (ticket_key(digest),), (int(resuming), OPEN_MS)
        found = await self._redis.run(_USE, keys, args)
        if found is None:
            return None
        caller, ends_ms, first = found
        return TicketUse(_decode(caller), int(ends_ms), bool(first))

    async def undo_use(self, digest: bytes) -> None:
        """Undo a first use, by which no stream was opened."""
        await self._redis.run(_UNDO_USE, (ticket_key(digest),), ())

    async def keep(self, ends_ms: Mapping[bytes, int], *, now_ms: int) -> None:
        """Renew tickets whose streams are open, in one packet; none beyond its end."""
        commands = [
            ("PEXPIREAT", ticket_key(digest), min(now_ms + OPEN_MS, end_ms))
            for digest, end_ms in ends_ms.items()
        ]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)

    async def close(self, digest: bytes) -> None:
        """Begin the time in which a closed stream may be opened again."""
        # LT: a ticket that ends sooner, with its token, still does.
        command = ("PEXPIRE", ticket_key(digest), CLOSED_MS, "LT")
        await self._redis.call(*command, write=True)

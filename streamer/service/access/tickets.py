"""
Tickets: credentials for streams that may be part of a URL.

Decides which callers get a ticket, its rights, and when it opens a stream. Knows
callers, the tickets in the store, and the check for revoked credentials. Knows nothing
of queries and headers.

EventSource cannot send headers, and URLs end up in logs, histories and proxies. So a
page requests a ticket with its token, and opens its stream with the ticket. A ticket
opens streams and nothing else. It is valid for one use within a minute; after that,
only to resume that stream, with the last event id that the stream delivered, until two
minutes after the stream was closed. It becomes invalid when its token expires or is
revoked.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ...core.access.rights import Caller
from ...errors import Defect, Error, Forbidden, Unauthenticated
from ...store.access.tickets import FIRST_MS, TicketStore, ticket_digest
from ...store.client.faults import STORE_FAILURES, StoreFaults
from .revocation import RevocationCheck

__all__ = [
    "FIRST_USE_S",
    "PREFIX",
    "RENEW_S",
    "OpenTicket",
    "Tickets",
    "instance_of",
]

PREFIX: Final = "tk_"
"""The prefix of tickets; no token or backend key has it."""

FIRST_USE_S: Final = FIRST_MS // 1_000

RENEW_S: Final = 60.0
"""How often the tickets of open streams are renewed; they last three times as long."""

RETRY_S: Final = 5.0
"""The time between attempts while renewals fail."""

PART: Final = "tickets"
"""The name of this part in `StoreFaults`."""

TEXT_CHARS_MAX: Final = 64

_RANDOM_BYTES: Final = 32

_logger = logging.getLogger(__name__)


class OpenTicket(NamedTuple):
    """A ticket in use. `first` is true at its first use."""

    digest: bytes
    caller: Caller
    first: bool


class Tickets:
    """
    Issues tickets, and renews those of the streams that are open on this node.

    Args:
        store: The tickets in the store.
        revocation_check: Finds revoked credentials.
        clock: Unix time in seconds.
        renew_s: How often the tickets of open streams are renewed.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        store: TicketStore,
        revocation_check: RevocationCheck,
        *,
        clock: Callable[[], float] = time.time,
        renew_s: float = RENEW_S,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._store = store
        self._revocation_check = revocation_check
        self._clock = clock
        self._renew_s = renew_s
        self._open: dict[bytes, list[int]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def issue(self, caller: Caller) -> str:
        """
        Issue a ticket for streams of the caller's own player.

        Raises:
            Forbidden: The caller has no player, may not stream, or does not expire.
            Unavailable: The store is unavailable.
        """
        caller.require_listen(caller.require_player())
        if caller.expires_at_s is None:
            raise Forbidden("a token that expires")
        text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        await self._store.issue(
            ticket_digest(text.encode()),
            caller.as_ticket,
            now_ms=int(self._clock() * 1_000),
            ends_ms=caller.expires_at_s * 1_000,
        )
        return text

    async def open(self, text: str, *, resuming: bool) -> OpenTicket:
        """
        Use a ticket for a stream. If this returns, the caller must call `close`.

        Args:
            text: The ticket as the client sent it.
            resuming: Whether the client sent the last event id of its stream.

        Raises:
            Unauthenticated: TICKET or REVOKED.
            Unavailable: The store is unavailable.
        """
        if not text.startswith(PREFIX) or len(text) > TEXT_CHARS_MAX:
            raise Unauthenticated(Defect.TICKET)
        digest = ticket_digest(text.encode("utf-8", "surrogatepass"))
        use = await self._store.use(digest, resuming=resuming)
        if use is None:
            raise Unauthenticated(Defect.TICKET)
        ticket = OpenTicket(digest, use.caller, use.first)
        self._open.setdefault(digest, []).append(use.ends_ms)
        try:
            if await self._revocation_check.find_revoked([use.caller]):
                raise Unauthenticated(Defect.REVOKED)
        except BaseException as error:
            opened = not isinstance(error, Error)
            await asyncio.shield(self.close(ticket, opened=opened))
            raise
        return ticket

    async def close(self, ticket: OpenTicket, *, opened: bool) -> None:
        """
        End the use of a ticket.

        Args:
            ticket: The result of `open`. Call this once for each.
            opened: Whether the stream was opened. If not, the first use of a ticket is
                undone.

        """
        self._open[ticket.digest].pop()
        if not self._open[ticket.digest]:
            del self._open[ticket.digest]
        await self._release(ticket.digest, opened=opened or not ticket.first)

    def close_soon(self, ticket: OpenTicket, *, opened: bool) -> None:
        """Call `close` in the background."""
        closing = asyncio.create_task(self.close(ticket, opened=opened))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def wait_closed(self) -> None:
        """Wait for all calls of `close_soon` to complete."""
        if self._closing:
            await asyncio.wait(self._closing)

    async def run(self) -> None:
        """Renew the tickets of open streams periodically until cancelled."""
        attempts = self._faults.attempts(PART)
        while True:
            await asyncio.sleep(
                min(RETRY_S, self._renew_s) if attempts.failing else self._renew_s
            )
            async with attempts:
                await self.renew_open()

    async def renew_open(self) -> None:
        """Renew the tickets of open streams once. Raises Unavailable."""
        ends_ms = {digest: ends[0] for digest, ends in self._open.items()}
        await self._store.keep(ends_ms, now_ms=int(self._clock() * 1_000))

    async def _release(self, digest: bytes, *, opened: bool) -> None:
        try:
            if opened:
                await self._store.close(digest)
            else:
                await self._store.undo_use(digest)
        except STORE_FAILURES as error:
            _logger.info("could not close a ticket: %s", error)


def instance_of(text: str) -> str:
    """
    Return the instance of a client that has a ticket and names no instance.

    So a resumed stream replaces its predecessor, whose end the server may not have
    noticed yet.
    """
    digest = hashlib.sha256(b"streamer instance\0" + text.encode()).hexdigest()
    return f"ticket.{digest[:32]}"

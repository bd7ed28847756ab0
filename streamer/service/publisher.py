"""
Publishing: from what a surface decoded to what is stored and acknowledged.

Decides that everything is checked before anything is written, and what is answered when
the store does not confirm. Knows idempotency keys. Knows nothing of how a surface
writes its requests, nor of who is listening.

What comes back without an error is stored, announced, and as durable as the store's
setting says. A batch to one player is one atomic step. Across players it is applied in
order, not atomically: when some of it is not confirmed the caller is told to repeat it
with its idempotency key, which completes it and doubles nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ..core.access import Caller
from ..errors import Conflict, FieldError, Invalid, OutcomeUnknown, StoreAway
from ..model import App, Log, Notification, Player, Position, encode_fragment
from ..store.inbox import ONCE_MS, Appended, Inbox, Once
from ..store.keys import request_key
from ..store.link import Link

__all__ = [
    "PLAYERS_MAX",
    "Published",
    "Publisher",
    "checked_key",
    "claim_key",
    "encode",
]

PLAYERS_MAX: Final = 1_000
FRAGMENT_BYTES_MAX: Final = 524_288
"""A RallyHere notification may carry 256 KiB of custom data; escaping can double it."""

IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
BATCH: Final = 100
"""Logs appended to in one packet; other callers' commands come between packets."""


class Published(NamedTuple):
    """
    What became of a publish.

    `positions` has a list per player asked for, in the order of the request, and in
    each list the positions of the notifications in their order. `replayed` is true when
    an earlier request with the same idempotency key had stored all of it.
    """

    positions: list[tuple[Player, list[Position]]]
    replayed: bool


class Publisher:
    """
    Store notifications and announce them.

    Args:
        link: The way to the store, for idempotency keys.
        inbox: Where notifications go.

    """

    def __init__(self, link: Link, inbox: Inbox) -> None:
        self._link = link
        self._inbox = inbox

    async def publish(
        self,
        caller: Caller,
        players: Sequence[Player],
        notifications: Sequence[Notification],
        *,
        idempotency_key: str | None = None,
    ) -> Published:
        """
        Store every notification in the inbox of every player.

        A player that is named twice gets them once.

        Raises:
            Forbidden: The caller may not send to one of the players.
            Invalid: The key or a notification is not acceptable.
            Conflict: The key was used for something else within 24 hours.
            StoreAway: Nothing was stored.
            OutcomeUnknown: Some or all of it may have been stored.

        """
        assert players
        assert notifications
        for player in players:
            caller.require_write(player)
        fragments = encode(notifications)
        distinct = list(dict.fromkeys(players))
        once = None
        if idempotency_key is not None:
            once = Once(checked_key(idempotency_key), _digest(distinct, fragments))
            # The appends carry the key too, and are what makes a repetition harmless.
            # This record is what sees the key come back with another list of players.
            await claim_key(self._link, caller.app, once.key, once.digest)
        appended = await self._append(
            [(Log(caller.app, player), fragments) for player in distinct], once
        )
        by_player = dict(zip(distinct, appended, strict=True))
        return Published(
            [(player, by_player[player].positions) for player in players],
            replayed=all(one.replayed for one in appended),
        )

    async def _append(
        self, batches: list[tuple[Log, list[bytes]]], once: Once | None
    ) -> list[Appended]:
        appended: list[Appended] = []
        for first in range(0, len(batches), BATCH):
            try:
                replies = await self._inbox.append_many(
                    batches[first : first + BATCH], once=once
                )
            except StoreAway as error:
                raise _incomplete([*appended, error]) from error
            for reply in replies:
                if isinstance(reply, ResponseError) and "CONFLICT" in str(reply):
                    raise Conflict
            if any(isinstance(reply, Exception) for reply in replies):
                raise _incomplete([*appended, *replies])
            appended += [reply for reply in replies if isinstance(reply, Appended)]
        return appended


def _incomplete(outcomes: Sequence[Appended | Exception]) -> Exception:
    """Return what to tell a caller of whose appends not all were confirmed."""
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(
            outcome, StoreAway | OutcomeUnknown
        ):
            return outcome
    if all(isinstance(outcome, StoreAway) for outcome in outcomes):
        return StoreAway()
    return OutcomeUnknown()


def encode(notifications: Sequence[Notification]) -> list[bytes]:
    """Return notifications as the log keeps them. Raises Invalid."""
    fragments = []
    for i, notification in enumerate(notifications):
        try:
            fragment = encode_fragment(notification)
        except (ValueError, TypeError, RecursionError, UnicodeError) as error:
            raise Invalid(FieldError(("body", i), f"cannot be stored: {error}")) from (
                error
            )
        if len(fragment) > FRAGMENT_BYTES_MAX:
            problem = f"has {len(fragment)} bytes, allowed {FRAGMENT_BYTES_MAX}"
            raise Invalid(FieldError(("body", i), problem))
        fragments.append(fragment)
    return fragments


async def claim_key(link: Link, app: App, key: str, digest: str) -> None:
    """
    Let an idempotency key stand for the request of that digest, for a day.

    Raises:
        Conflict: It stands for another one.
        StoreAway, OutcomeUnknown: As `Link.call`; asking again is harmless.

    """
    before = await link.call(
        "SET",
        request_key(app, key),
        digest,
        "NX",
        "GET",
        "PX",
        ONCE_MS,
        write=True,
    )
    if before is not None and before != digest.encode():
        raise Conflict


def checked_key(key: str) -> str:
    """Return an idempotency key that is acceptable. Raises Invalid."""
    if (
        1 <= len(key) <= IDEMPOTENCY_KEY_CHARS_MAX
        and key.isascii()
        and key.isprintable()
    ):
        return key
    problem = f"must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
    raise Invalid(FieldError(("header", "Idempotency-Key"), problem))


def _digest(players: Sequence[Player], fragments: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for player in players:
        digest.update(player.encode() + b"\0")
    for fragment in fragments:
        digest.update(b"\0" + fragment)
    return digest.hexdigest()[:32]

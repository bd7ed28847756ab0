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
import time
import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ..core.access import Caller
from ..core.figures import Figures
from ..core.schedule import parse_time
from ..errors import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StoreAway,
)
from ..model import (
    App,
    Log,
    Notification,
    Player,
    Position,
    decode_id,
    notification_json,
)
from ..store.inbox import ONCE_MS, Appended, Draft, Inbox, Once
from ..store.keys import request_key
from ..store.link import Link
from .drafts import Device, Message, addressed_to, batches_of, encode, ending
from .quotas import Quotas

__all__ = [
    "PLAYERS_MAX",
    "Published",
    "Publisher",
    "Sent",
    "checked_key",
    "claim_key",
]

PLAYERS_MAX: Final = 1_000
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
BATCH: Final = 100
"""Logs appended to in one packet; other callers' commands come between packets."""


class Published(NamedTuple):
    """
    What became of a publish.

    `positions` has a list per recipient asked for, in the order of the request, and in
    each list the positions of the notifications in their order: None where the player
    has muted the type, and nothing was stored. `replayed` is true when an earlier
    request with the same idempotency key had stored all of it.
    """

    positions: list[tuple[Player, list[Position | None]]]
    replayed: bool


class Sent(NamedTuple):
    """
    What became of messages: for each one, the recipients asked for and its places.

    A place is None where the player has muted the type. `replayed` is as in
    `Published`.
    """

    places: list[list[tuple[Log, Position | None]]]
    replayed: bool


class Publisher:
    """
    Store notifications and announce them.

    Args:
        link: The way to the store, for idempotency keys.
        inbox: Where notifications go.
        figures: What counts them.
        quotas: What the app still may use.

    """

    def __init__(
        self,
        link: Link,
        inbox: Inbox,
        figures: Figures | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._figures = figures or Figures()
        self._quotas = quotas or Quotas.unlimited(link)
        self._link = link
        self._inbox = inbox

    async def publish(
        self,
        caller: Caller,
        players: Sequence[Player],
        notifications: Sequence[Notification],
        *,
        ttls_ms: Sequence[int] = (),
        device: Device = "all",
        idempotency_key: str | None = None,
    ) -> Published:
        """
        Store every notification in the inbox of every player.

        A player that is named twice gets them once.

        Args:
            caller: Who sends.
            players: To whom.
            notifications: What.
            ttls_ms: For each notification how long it lives, 0 for what it says itself;
                none at all stands for that of every one. When it ends is then counted
                from the store's time, and not a part of what a repetition repeats.
            device: Whether it is live only on the device that a player used last.
            idempotency_key: What a repetition has too.

        Raises:
            Forbidden: The caller may not send to one of the players.
            Invalid: The key or a notification is not acceptable.
            OverQuota: The app may not; the key is as free as before.
            Conflict: The key was used for something else within 24 hours.
            StoreAway: Nothing was stored.
            OutcomeUnknown: Some or all of it may have been stored.

        """
        assert players
        assert notifications
        logs = [Log(caller.app, player) for player in players]
        sent = await self.send(
            caller,
            [
                Message(logs, notification, ttl_ms, device)
                for notification, ttl_ms in zip(
                    notifications, ttls_ms or [0] * len(notifications), strict=True
                )
            ],
            idempotency_key=idempotency_key,
        )
        places = zip(*sent.places, strict=True)
        return Published(
            [
                (player, [place for _, place in of_player])
                for player, of_player in zip(players, places, strict=True)
            ],
            sent.replayed,
        )

    async def send(
        self,
        caller: Caller,
        messages: Sequence[Message],
        *,
        idempotency_key: str | None = None,
    ) -> Sent:
        """
        Store messages in the logs they are for, in their order.

        What is for one log is stored in one step. Raises as `publish` does.
        """
        _require_write(caller, messages)
        addressed = [addressed_to(it.logs[0], it.notification) for it in messages]
        fragments = encode(addressed)
        once = None
        if idempotency_key is not None:
            asked = _digest(messages, fragments)
            once = Once(checked_key(idempotency_key), asked)
        ttls_ms = [message.ttl_ms for message in messages]
        lives = any(ttls_ms)
        if lives or any(it.expires_at for it in addressed):
            now_ms = await self._link.now_ms()
            await self._require_ahead(caller.app, addressed, now_ms, once)
            if lives:
                addressed = ending(addressed, ttls_ms, now_ms)
                fragments = encode(addressed)
        batches = batches_of(messages, addressed, fragments)
        drafts = [draft for batch in batches.values() for draft in batch.values()]
        async with self._quotas.charged(
            caller.app,
            deliveries=len(drafts),
            size=sum(len(draft.fragment) for draft in drafts),
            players=[log.player for log in batches if not log.is_audience],
        ) as charge:
            if once is not None:
                # The appends carry the key too, and are what makes a repetition
                # harmless. This record is what sees the key come back with another
                # list of players.
                await claim_key(self._link, caller.app, once.key, once.digest)
            appended = await self._append(
                [(log, list(batch.values())) for log, batch in batches.items()], once
            )
            fresh = [one for one in appended if not one.replayed]
            # What was stored by an earlier request was paid for by that.
            charge.give_back(1 - len(fresh) / len(appended))
        self._figures.published(sum(len(one.stored) for one in fresh))
        places = {
            log: dict(zip(batch, one.positions, strict=True))
            for (log, batch), one in zip(batches.items(), appended, strict=True)
        }
        return Sent(
            [
                [(log, places[log][i]) for log in message.logs]
                for i, message in enumerate(messages)
            ],
            replayed=all(one.replayed for one in appended),
        )

    async def flash(self, caller: Caller, message: Message) -> str:
        """
        Send a notification to who is listening now, and keep nothing; return its id.

        It has no place in any log: who misses it never learns of it.

        Raises:
            Forbidden: The caller may not send to one of the recipients.
            Invalid: The notification is not acceptable.
            OverQuota: The app may not.
            StoreAway: Nothing was sent.
            OutcomeUnknown: Some may have got it.

        """
        _require_write(caller, [message])
        (fragment,) = encode([addressed_to(message.logs[0], message.notification)])
        logs = list(dict.fromkeys(message.logs))
        notification_id = str(uuid.uuid4())
        now_ms = time.time_ns() // 1_000_000
        text = notification_json(notification_id, now_ms, fragment)
        async with self._quotas.charged(
            caller.app,
            deliveries=len(logs),
            size=len(logs) * len(fragment),
            players=[],
        ):
            await self._inbox.pass_by(logs, text)
        return notification_id

    async def withdraw(
        self, caller: Caller, audience: Log, notification_id: str
    ) -> None:
        """
        Take a notification back that an audience was sent, from all its players.

        Doing it twice is no error while it is kept.

        Raises:
            Forbidden: The caller may not write to everybody.
            NotFound: There is none of that id, or not any more.
            StoreAway: Nothing was done.
            OutcomeUnknown: Repeating it is harmless.

        """
        assert audience.is_audience
        caller.require_write_all()
        place = decode_id(notification_id)
        if place is None or await self._inbox.withdraw(audience, place) is None:
            raise NotFound("the notification")

    async def _require_ahead(
        self,
        app: App,
        notifications: Sequence[Notification],
        now_ms: int,
        once: Once | None,
    ) -> None:
        """Raise Invalid where notifications have ended before they are sent."""
        over = [
            i
            for i, notification in enumerate(notifications)
            if notification.expires_at is not None
            and (ends_ms := parse_time(notification.expires_at)) is not None
            and ends_ms <= now_ms
        ]
        if not over:
            return
        # A repetition is answered as the first request was, however late it comes.
        if once is not None:
            before = await self._link.call("GET", request_key(app, once.key))
            if before == once.digest.encode():
                return
        problem = "is not in the future"
        raise Invalid(*(FieldError(("body", i, "expires_at"), problem) for i in over))

    async def _append(
        self, batches: list[tuple[Log, list[Draft]]], once: Once | None
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


def _digest(messages: Sequence[Message], fragments: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for message, fragment in zip(messages, fragments, strict=True):
        for log in message.logs:
            digest.update(log.player.encode() + b"\0")
        digest.update(b"%d %b\0" % (message.ttl_ms, message.device.encode()))
        digest.update(fragment + b"\0")
    return digest.hexdigest()[:32]


def _require_write(caller: Caller, messages: Sequence[Message]) -> None:
    for message in messages:
        for log in message.logs:
            if log.is_audience:
                caller.require_write_all()
            else:
                caller.require_write(log.player)

"""
Publishing: from decoded messages to stored and acknowledged entries.

Decides that everything is checked before anything is written, and which error a caller
gets if the store does not confirm. Knows idempotency keys. Knows nothing of how a
surface encodes requests, nor of subscribers.

A publish that returns is stored and announced, and as durable as the setting
`durability` says. All messages for one log are appended in one atomic step. Logs are
written in order, not atomically: if the store does not confirm all of them, the caller
repeats the request with its idempotency key, which stores what is missing and nothing
twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.access.rights import Caller
from ...core.counters import Counters
from ...errors import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
)
from ...model import (
    Log,
    Notification,
    Player,
    Position,
    decode_id,
    everyone_log,
    notification_json,
)
from ...store.client.connection import RedisConnection
from ...store.client.replies import StoreConflict
from ...store.logs.inbox import AppendResult, Draft, Inbox, Once
from ..node.quotas import Quotas
from ..privacy.audit import Action, Audit, recording, target_of
from ..privacy.purging import Purging
from .drafts import Device, Message, drafts_of, indexes_by_log
from .idempotency import IdempotentRequest

__all__ = [
    "PLAYERS_MAX",
    "PublishResult",
    "Publisher",
    "SendResult",
]

PLAYERS_MAX: Final = 1_000
BATCH: Final = 100
"""Logs written in one packet; commands of other callers run between packets."""


class PublishResult(NamedTuple):
    """
    The result of `Publisher.publish`.

    `positions` has a list per player of the request, in its order, with the positions
    of the notifications in their order. A position is None if the player has muted the
    type, so that nothing was stored. `replayed` is true if an earlier request with the
    same idempotency key stored all of it.
    """

    positions: list[tuple[Player, list[Position | None]]]
    replayed: bool


class SendResult(NamedTuple):
    """
    The result of `Publisher.send`.

    `positions` has a list per message, with its position in each of its logs, in their
    order. A position is None if the player has muted the type. `replayed` is as in
    `PublishResult`.
    """

    positions: list[list[Position | None]]
    replayed: bool


Batches = list[tuple[Log, list[Draft]]]


class Publisher:
    """
    Store notifications and announce them.

    Args:
        redis: The connection to the store, for idempotency keys.
        inbox: The logs.
        counters: Counts publishes.
        quotas: The quotas of apps; without, nothing is limited.
        audit: Records what concerns everyone or a whole topic.
        purging: Purges notifications to audiences.

    """

    def __init__(
        self,
        redis: RedisConnection,
        inbox: Inbox,
        counters: Counters | None = None,
        quotas: Quotas | None = None,
        audit: Audit | None = None,
        purging: Purging | None = None,
    ) -> None:
        self._audit = audit
        self._purging = purging
        self._counters = counters or Counters()
        self._quotas = quotas or Quotas.unlimited(redis)
        self._redis = redis
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
    ) -> PublishResult:
        """
        Store every notification in the inbox of every player.

        A player that is named twice gets them once. O(players * notifications).

        Args:
            caller: The sender.
            players: The recipients, at least one.
            notifications: The notifications, at least one.
            ttls_ms: The lifetime of each notification, from the store's time on; 0 if
                its own `expires_at` applies. Empty stands for 0 for all. The time of
                expiry that results is not part of what a repetition has to equal.
            device: With ``latest``, delivered live only to the device that a player
                used last.
            idempotency_key: Identifies repetitions for 24 hours.

        Raises:
            Forbidden: The caller may not send to one of the players.
            Invalid: The key or a notification is invalid.
            OverQuota: A quota of the app is used up; the key is not claimed.
            Conflict: The key was used for another request within 24 hours.
            StoreUnavailable: Nothing was stored.
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
        positions = zip(*sent.positions, strict=True)
        return PublishResult(
            [
                (player, list(of_player))
                for player, of_player in zip(players, positions, strict=True)
            ],
            sent.replayed,
        )

    def send(
        self,
        caller: Caller,
        messages: Sequence[Message],
        *,
        idempotency_key: str | None = None,
    ) -> Awaitable[SendResult]:
        """
        Store messages in their logs, in their order.

        All messages for one log are stored in one step. Raises as `publish`.
        """
        everyone = everyone_log(caller.app)
        for message in messages:
            if everyone in message.logs:
                return self._send_to(everyone, caller, messages, idempotency_key)
        return self._send(caller, messages, idempotency_key)

    async def _send_to(
        self,
        everyone: Log,
        caller: Caller,
        messages: Sequence[Message],
        idempotency_key: str | None,
    ) -> SendResult:
        """Send messages of which some are to everyone, which is audited."""
        async with recording(
            self._audit, caller, "publish.everyone", target=target_of(everyone)
        ) as details:
            sent = await self._send(caller, messages, idempotency_key)
            details["ids"] = [
                position.id
                for message, of_message in zip(messages, sent.positions, strict=True)
                for log, position in zip(message.logs, of_message, strict=True)
                if log == everyone and position is not None
            ]
            details["replayed"] = sent.replayed
            return sent

    async def _send(
        self, caller: Caller, messages: Sequence[Message], idempotency_key: str | None
    ) -> SendResult:
        _require_write(caller, messages)
        drafts = drafts_of(messages)
        request = IdempotentRequest.of(
            caller.app, idempotency_key, _parts(messages, drafts)
        )
        has_ttl = has_expiry = False
        for message in messages:
            if message.ttl_ms:
                has_ttl = True
            elif message.notification.expires_at:
                has_expiry = True
        if has_ttl or has_expiry:
            now_ms = await self._redis.now_ms()
            await self._require_future_expiry(request, messages, drafts, now_ms)
            if has_ttl:
                drafts = drafts_of(messages, now_ms=now_ms)
        recipients = indexes_by_log(messages)
        batches = [
            (
                log,
                drafts if len(indexes) == len(drafts) else [drafts[i] for i in indexes],
            )
            for log, indexes in recipients.items()
        ]
        try:
            appended = await self._append_charged(request, batches)
        except StoreFull:
            # A full store may not even charge. It still knows what a repetition has
            # stored.
            if not await request.is_claimed(self._redis):
                raise
            appended = await self._append(batches, request.once)
        return _send_result(messages, recipients, appended)

    async def send_ephemeral(self, caller: Caller, message: Message) -> str:
        """
        Send a notification to current subscribers without storing it; return its id.

        Delivery is at most once: subscribers that miss it never receive it.

        Raises:
            Forbidden: The caller may not send to one of the recipients.
            Invalid: The notification is invalid.
            OverQuota: A quota of the app is used up.
            StoreUnavailable: Nothing was sent.
            OutcomeUnknown: Some subscribers may have received it.

        """
        everyone = everyone_log(caller.app)
        if everyone not in message.logs:
            return await self._send_ephemeral(caller, message)
        async with recording(
            self._audit, caller, "publish.everyone", target=target_of(everyone)
        ) as details:
            details["stored"] = False
            return await self._send_ephemeral(caller, message)

    async def _send_ephemeral(self, caller: Caller, message: Message) -> str:
        _require_write(caller, [message])
        fragment = drafts_of([message])[0].fragment
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
            await self._inbox.announce_ephemeral(logs, text)
        return notification_id

    async def withdraw(
        self,
        caller: Caller,
        audience: Log,
        notification_id: str,
        *,
        purge: bool = False,
        reason: str = "",
    ) -> None:
        """
        Withdraw a notification that was sent to an audience, for all its players.

        Idempotent as long as the notification is kept.

        Args:
            caller: The caller.
            audience: The log.
            notification_id: The notification.
            purge: Whether to remove its text from the store, too.
            reason: Why, for the audit log.

        Raises:
            Forbidden: The caller may not write to all players.
            NotFound: The audience's log has no notification of that id.
            StoreUnavailable: Nothing was withdrawn.
            OutcomeUnknown: It may have been withdrawn; a retry is safe.

        """
        assert audience.is_audience
        action: Action = "purge" if purge else "withdraw"
        async with recording(
            self._audit, caller, action, target=target_of(audience), reason=reason
        ) as details:
            details["id"] = notification_id
            caller.require_write_all()
            position = decode_id(notification_id)
            if position is None or not await self._withdraw(audience, position, purge):
                raise NotFound("the notification")

    async def _withdraw(self, audience: Log, position: Position, purge: bool) -> bool:
        if purge:
            assert self._purging is not None
            return await self._purging.purge(audience, position)
        return await self._inbox.withdraw(audience, position) is not None

    async def _require_future_expiry(
        self,
        request: IdempotentRequest,
        messages: Sequence[Message],
        drafts: Sequence[Draft],
        now_ms: int,
    ) -> None:
        """Raise Invalid if notifications expire before they are sent."""
        expired = [
            i
            for i, (message, draft) in enumerate(zip(messages, drafts, strict=True))
            if message.notification.expires_at and draft.expires_ms <= now_ms
        ]
        if not expired:
            return
        # A repetition gets the response of the first request, however late it arrives.
        if await request.is_claimed(self._redis):
            return
        problem = "must be in the future"
        raise Invalid(
            *(FieldError(("body", i, "expires_at"), problem) for i in expired)
        )

    async def _append_charged(
        self, request: IdempotentRequest, batches: Batches
    ) -> list[AppendResult]:
        """Charge the app and append the batches; see `send`."""
        deliveries = size = 0
        for _, batch in batches:
            for draft in batch:
                deliveries += 1
                size += len(draft.fragment)
        async with self._quotas.charged(
            request.app,
            deliveries=deliveries,
            size=size,
            players=(log.player for log, _ in batches if not log.is_audience),
        ) as charge:
            if request.key:
                # An append sees the batch of its log only. The claim detects a reuse
                # of the key with another list of players.
                await request.claim(self._redis)
            appended = await self._append(batches, request.once)
            appended_now = stored_count = 0
            for reply in appended:
                if not reply.replayed:
                    appended_now += 1
                    stored_count += reply.stored_count
            if appended_now < len(appended):
                # The earlier request was charged for what it stored.
                charge.refund(1 - appended_now / len(appended))
        self._counters.count_publish(stored_count)
        return appended

    async def _append(self, batches: Batches, once: Once | None) -> list[AppendResult]:
        appended: list[AppendResult] = []
        for first in range(0, len(batches), BATCH):
            try:
                replies = await self._inbox.append_many(
                    batches[first : first + BATCH], once=once
                )
            except StoreUnavailable as error:
                raise _failure_of([*appended, error]) from error
            stored = [reply for reply in replies if isinstance(reply, AppendResult)]
            if len(stored) < len(replies):
                raise _failure_of([*appended, *replies])
            appended += stored
        return appended


_replayed: Final = attrgetter("replayed")


def _send_result(
    messages: Sequence[Message],
    recipients: Mapping[Log, Sequence[int]],
    appended: Sequence[AppendResult],
) -> SendResult:
    replayed = all(map(_replayed, appended))
    if len(messages) == 1 and len(messages[0].logs) == len(appended):
        # Each log once, in the order of the message.
        return SendResult([[reply.positions[0] for reply in appended]], replayed)
    by_log: list[dict[Log, Position | None]] = [{} for _ in messages]
    for (log, indexes), reply in zip(recipients.items(), appended, strict=True):
        for i, position in zip(indexes, reply.positions, strict=True):
            by_log[i][log] = position
    positions = [
        [of_message[log] for log in message.logs]
        for message, of_message in zip(messages, by_log, strict=True)
    ]
    return SendResult(positions, replayed)


def _failure_of(outcomes: Sequence[AppendResult | Exception]) -> Exception:
    """Return the error of a publish of which not all appends were confirmed."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, ResponseError)]
    if any(isinstance(outcome, StoreConflict) for outcome in refusals):
        return Conflict()
    if refusals:
        return refusals[0]
    if all(isinstance(outcome, StoreUnavailable) for outcome in outcomes):
        return outcomes[0]  # type: ignore[return-value]  # as all of them
    return OutcomeUnknown()


def _parts(
    messages: Sequence[Message], drafts: Sequence[Draft]
) -> Iterator[str | bytes]:
    """Yield the parts of a publish that have to be equal in a repetition."""
    for message, draft in zip(messages, drafts, strict=True):
        yield "\0".join([log.name for log in message.logs])
        yield f"{message.ttl_ms} {message.device}"
        yield draft.fragment


def _require_write(caller: Caller, messages: Sequence[Message]) -> None:
    if caller.may_write_all:
        return
    for message in messages:
        for log in message.logs:
            if log.is_audience:
                caller.require_write_all()
            else:
                caller.require_write(log.player)

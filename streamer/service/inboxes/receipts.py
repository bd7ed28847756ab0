"""
Receipts: what became of a notification, for the backend that sent it.

Decides who may know, and in which log it is looked for. Knows the receipts of players'
logs, and what players did with audiences' entries. Knows nothing of surfaces.

What a player did with an audience's message is known with the player; how many did is
counted with the message. The count is made behind the mark, in another slot: it may be
lower than the truth by those that were cut off between the two, and never higher.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor, audience_key
from ...errors import NotFound
from ...model import ZERO, Log, Player, Position, decode_id
from ...store.logs.receipts import Receipt, ReceiptStore
from .audiences import PlayerAudiences

__all__ = ["AudienceReceipt", "Receipt", "ReceiptOperations"]

COUNTED_MAX = 1_000
"""Entries for which one acknowledgement is counted; of older ones it is not."""


class AudienceReceipt(NamedTuple):
    """What became of an audience's message: as for one player, and for how many."""

    receipt: Receipt
    read: int
    acknowledged: int


class ReceiptOperations:
    """
    What a caller may know of what became of notifications.

    Args:
        store: Receipts in the store.
        audiences: Who belongs to what.

    """

    def __init__(self, store: ReceiptStore, audiences: PlayerAudiences) -> None:
        self._store = store
        self._audiences = audiences

    async def acknowledge(self, caller: Caller, player: Player, cursor: Cursor) -> None:
        """
        Note that a client of the player's has everything up to a cursor.

        Places that are not in their logs are ignored.

        Raises:
            Forbidden: The caller may not mark this inbox.
            StoreUnavailable: Nothing is noted.
            OutcomeUnknown: Repeating it is harmless.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        if not cursor.own.is_zero:
            await self._store.acknowledge(log, cursor.own)
        if not cursor.audiences:
            return
        views = self._audiences.views
        positions = [
            (view.log, position)
            for view in await self._audiences.views_of(log)
            if (position := cursor.audiences.get(audience_key(view.log), ZERO)) != ZERO
        ]
        lookups = await views.find_live(
            [(audience, [position]) for audience, position in positions]
        )
        for (audience, position), lookup in zip(positions, lookups, strict=True):
            if lookup.offsets and position.epoch in (0, lookup.epoch):
                position = position._replace(epoch=lookup.epoch)
                newly_acknowledged = await views.acknowledge(log, audience, position)
                if newly_acknowledged:
                    await views.count(
                        audience, "acked", newly_acknowledged[-COUNTED_MAX:]
                    )

    async def of_player(
        self, caller: Caller, player: Player, notification_id: str
    ) -> Receipt:
        """
        Return what became of a notification for one player.

        Raises:
            Forbidden: The caller may not read this inbox.
            NotFound: It was never there, or is not any more.
            StoreUnavailable: It cannot be read now.

        """
        caller.require_read(player)
        log = Log(caller.app, player)
        position = _position_of(notification_id)
        if receipt := await self._store.of(log, position):
            return receipt
        views = await self._audiences.views_of(log)
        receipts = await self._store.of_many([(view.log, position) for view in views])
        for view, receipt in zip(views, receipts, strict=True):
            if receipt is None or not view.reaches(position._replace(epoch=0)):
                continue
            state = (await self._audiences.read([view.log]))[view.log]
            view_now = view.at(state)
            read_at_ms = 0
            if view_now.is_done(position.offset):
                ((read_at_ms,),) = await self._audiences.views.read_at_ms(
                    log, [(view.log, [position.offset])]
                )
            acked = await self._audiences.views.acked_offset(
                log, view.log, state.head.epoch
            )
            return receipt._replace(
                read_at_ms=read_at_ms, acknowledged=position.offset <= acked
            )
        raise NotFound("the notification")

    async def of_audience(
        self, caller: Caller, audience: Log, notification_id: str
    ) -> AudienceReceipt:
        """
        Return what became of an audience's message, for all its players together.

        Raises:
            Forbidden: The caller may not write to everybody.
            NotFound: It was never there, or is not any more.
            StoreUnavailable: It cannot be read now.

        """
        caller.require_write_all()
        position = _position_of(notification_id)
        receipt = await self._store.of(audience, position)
        if receipt is None:
            raise NotFound("the notification")
        read, acked = await self._audiences.views.counts(audience, position.offset)
        return AudienceReceipt(receipt, read, acked)


def _position_of(notification_id: str) -> Position:
    position = decode_id(notification_id)
    if position is None:
        raise NotFound("the notification")
    return position

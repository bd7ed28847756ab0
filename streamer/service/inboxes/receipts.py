"""
Receipts: the fate of a notification, for the backend that sent it.

Decides the rights that each operation requires, and in which log a notification is
looked up. Knows the receipts of logs, and the marks of players on entries of audiences.
Knows nothing of surfaces.

The marks on an audience's message are stored with each player, their numbers with the
message. A number is increased after the mark, in another slot of the store. It may be
too low by the marks whose node died in between, and is never too high.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor
from ...errors import NotFound
from ...model import Log, Player, Position, decode_id
from ...store.logs.receipts import Receipt, ReceiptStore
from ..inspection.history import History
from .audiences import CursorLocation, PlayerAudiences

__all__ = ["AudienceReceipt", "Receipt", "ReceiptOperations"]


class AudienceReceipt(NamedTuple):
    """The receipt of an audience's message, and the numbers of its players' marks."""

    receipt: Receipt
    read: int
    acknowledged: int


class ReceiptOperations:
    """
    The operations on receipts, with the rights of a caller.

    Args:
        store: The receipts in the store.
        audiences: The audiences of players.
        history: Remembers acknowledgements.

    """

    def __init__(
        self,
        store: ReceiptStore,
        audiences: PlayerAudiences,
        history: History | None = None,
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._history = history or History()

    async def acknowledge(self, caller: Caller, player: Player, cursor: Cursor) -> None:
        """
        Acknowledge that a client of the player has everything up to a cursor.

        It counts for every log of the inbox: up to the cursor's position, or up to the
        time of the own position, or of an id, where the cursor has none. It may be that
        of a notification that has ended. Positions that do not exist in their logs are
        ignored, and so is the whole cursor if it is another player's. Idempotent.

        Raises:
            Forbidden: The caller may not mark this inbox.
            StoreUnavailable: Nothing was acknowledged.
            OutcomeUnknown: A retry is safe.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        views = await self._audiences.views_of(log)
        location = await self._audiences.locate(log, [v.log for v in views], cursor)
        if location is None:
            return
        acknowledged = []
        own = await self._position(location, log)
        if not own.is_zero:
            await self._store.acknowledge(log, own)
            acknowledged.append((log.name, own.offset))
        for view in views:
            # What was sent to a muted audience has arrived only if it is named.
            if view.muted and view.log not in location.positions:
                continue
            position = await self._position(location, view.log)
            if not position.is_zero:
                await self._acknowledge_audience(log, view.log, position)
                acknowledged.append((view.log.name, position.offset))
        self._history.acknowledged(log, acknowledged)

    async def _position(self, location: CursorLocation, log: Log) -> Position:
        """Return the position up to which a client has a log."""
        named = location.positions.get(log)
        if named is not None:
            return named
        return await self._audiences.position_before(log, location.at.at_us)

    async def _acknowledge_audience(
        self, log: Log, audience: Log, position: Position
    ) -> None:
        views = self._audiences.views
        acknowledged = await views.acknowledge(log, audience, position)
        if acknowledged:
            await views.count("acked", [(audience, [acknowledged])])

    async def of_player(
        self, caller: Caller, player: Player, notification_id: str
    ) -> Receipt:
        """
        Return the receipt of a notification for one player.

        Raises:
            Forbidden: The caller may not read this inbox.
            NotFound: The inbox never had it, or no longer keeps it.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_read(player)
        log = Log(caller.app, player)
        position = _position_of(notification_id)
        if receipt := await self._store.of(log, position):
            return receipt
        views = await self._audiences.views_of(log)
        found = await self._store.of_each([(view.log, position) for view in views])
        damaged = None
        for view, of_log in zip(views, found, strict=True):
            if isinstance(of_log, Exception):
                # The notification may be in another audience's log.
                damaged = of_log
                continue
            if of_log is None:
                continue
            state = (await self._audiences.read([view.log]))[view.log]
            view_now = view.at(state)
            if not view_now.reaches(position._replace(epoch=state.head.epoch)):
                continue
            read_at_ms = 0
            if view_now.is_done(position.offset):
                ((read_at_ms,),) = await self._audiences.views.read_at_ms(
                    log, [(view.log, [position.offset])]
                )
            acked = await self._audiences.views.acked_offset(
                log, view.log, state.head.epoch
            )
            return of_log._replace(
                read_at_ms=read_at_ms, acknowledged=position.offset <= acked
            )
        raise damaged or NotFound("the notification")

    async def of_audience(
        self, caller: Caller, audience: Log, notification_id: str
    ) -> AudienceReceipt:
        """
        Return the receipt of an audience's message, for all its players together.

        Raises:
            Forbidden: The caller may not write to all players.
            NotFound: The log never had it, or no longer keeps it.
            StoreUnavailable: The store cannot be read.

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

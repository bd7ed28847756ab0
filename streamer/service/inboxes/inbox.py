"""
Reading and marking an inbox.

Decides the rights that each operation requires, what a caller's cursor or id means, and
in which of a player's logs it is looked up. Knows the inbox, and the audiences merged
into it. Knows nothing of surfaces: they choose the limits and encode the responses.

Marks are written to the views of audiences first and to the player's own log last,
which announces all of them. Marking is idempotent: a caller
without a response repeats it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from redis.exceptions import ResponseError

from ...core.access.rights import Caller
from ...core.streams.client_messages import MARK_IDS_MAX
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Start
from ...core.streams.views import Audience, View
from ...errors import FieldError, Invalid, NotFound
from ...model import ZERO, Log, Player, Position, decode_id
from ...store.logs.inbox import Inbox, MarkResult, PageEntry, ReadAfter
from ..privacy.audit import Audit, recording
from ..privacy.purging import Purging
from .audiences import PlayerAudiences, unread_count
from .merge import EntriesAfter, MergedInbox, MergedPage, RecoveredCursor

__all__ = ["InboxOperations", "MergedPage", "PageEntry", "parse_cursor"]


_OF_AUDIENCE: Final = (
    "applies to notifications to a player alone; purge one to an audience where it was "
    "sent: DELETE /v1/topics/{topic}/notifications/{id}?purge=true, or /v1/everyone"
)


def parse_cursor(text: str, *where: str) -> Cursor:
    """
    Parse a cursor or the id of a notification.

    Raises:
        Invalid: It is neither; `where` is the location in the error.

    """
    if cursor := Cursor.parse(text):
        return cursor
    raise Invalid(FieldError(where, "must be a cursor or a notification id"))


class InboxOperations:
    """
    The operations on inboxes, with the rights of a caller.

    Args:
        inbox: The players' own logs.
        merged: The same merged with the logs of their audiences.
        audiences: The audiences of players.
        purging: Purges notifications.
        audit: Records that.

    """

    def __init__(
        self,
        inbox: Inbox,
        merged: MergedInbox,
        audiences: PlayerAudiences,
        *,
        purging: Purging | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._purging = purging
        self._audit = audit
        self._inbox = inbox
        self._merged = merged
        self._audiences = audiences

    async def page(
        self,
        caller: Caller,
        player: Player,
        *,
        newest: Cursor | None = None,
        newest_included: bool = True,
        oldest: Cursor | None = None,
        count: int,
        version: str = "",
        only_unread: bool = False,
    ) -> MergedPage:
        """
        Read a page as `MergedInbox.page` does. Raises Forbidden, StoreUnavailable.
        """
        caller.require_read(player)
        return await self._merged.page(
            Log(caller.app, player),
            newest=newest.own if newest else None,
            newest_included=newest_included,
            oldest=oldest,
            count=count,
            version=version,
            only_unread=only_unread,
        )

    async def get(
        self, caller: Caller, player: Player, notification_id: str
    ) -> PageEntry:
        """
        Return one notification.

        Raises:
            Forbidden: The caller may not read this inbox.
            NotFound: The inbox has no such notification.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_read(player)
        position = decode_id(notification_id)
        entry = position and await self._merged.get(Log(caller.app, player), position)
        if not entry:
            raise NotFound("the notification")
        return entry

    async def entries_after(
        self,
        caller: Caller,
        player: Player,
        start: Cursor | Start,
        *,
        count: int,
        up_to: Cursor | None = None,
        reset_audiences: Start | None = None,
    ) -> EntriesAfter:
        """
        Read the entries after `start`, oldest first; see `MergedInbox.entries_after`.

        Raises Forbidden, StoreUnavailable.
        """
        caller.require_listen(player)
        return await self._merged.entries_after(
            Log(caller.app, player),
            start,
            count=count,
            up_to=up_to,
            reset_audiences=reset_audiences,
        )

    async def recover(
        self, caller: Caller, player: Player, cursor: Cursor
    ) -> RecoveredCursor:
        """See `MergedInbox.recover`. Raises Forbidden, StoreUnavailable."""
        caller.require_read(player)
        return await self._merged.recover(Log(caller.app, player), cursor)

    async def unread_between(
        self,
        caller: Caller,
        player: Player,
        *,
        after: Cursor | None = None,
        before: Position | None = None,
    ) -> int:
        """See `MergedInbox.unread_between`. Raises Forbidden, StoreUnavailable."""
        caller.require_read(player)
        log = Log(caller.app, player)
        return await self._merged.unread_between(log, after=after, before=before)

    async def mark_ids(
        self,
        caller: Caller,
        player: Player,
        ids: Sequence[str],
        *,
        ids_max: int = MARK_IDS_MAX,
    ) -> MarkResult:
        """
        Mark notifications as read. Idempotent; unknown ids are ignored.

        Raises:
            Forbidden: The caller may not mark this inbox.
            Invalid: There are more than `ids_max`.
            StoreUnavailable: Nothing was marked.
            OutcomeUnknown: A retry is safe.

        """
        positions = self._positions(caller, player, ids, ids_max)
        log = Log(caller.app, player)
        elsewhere, changed = await self._change_marks(log, "ids", positions)
        return await self._inbox.mark_ids(
            log, positions, elsewhere=elsewhere, force=changed
        )

    async def mark_unread(
        self, caller: Caller, player: Player, ids: Sequence[str]
    ) -> MarkResult:
        """Mark notifications as unread; see `mark_ids`."""
        positions = self._positions(caller, player, ids, MARK_IDS_MAX)
        log = Log(caller.app, player)
        elsewhere, changed = await self._change_marks(log, "unread", positions)
        return await self._inbox.mark_unread(
            log, positions, elsewhere=elsewhere, force=changed
        )

    async def mark_up_to(
        self, caller: Caller, player: Player, cursor: Cursor
    ) -> MarkResult:
        """
        Mark all notifications up to a cursor as read; see `mark_ids`.

        The cursor may be the id of a notification in any of the player's logs, whether
        it has ended. Positions of other logs mark nothing, and neither does a cursor of
        another player. In a log that the cursor does not name, what pages show below
        the own position, or below the id, is marked.
        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        views = await self._audiences.views_of(log)
        location = await self._audiences.locate(log, [v.log for v in views], cursor)

        async def position_in(name: Log) -> Position:
            if location is None:
                return ZERO
            named = location.positions.get(name)
            if named is not None:
                return named
            return await self._audiences.position_up_to(name, location.at)

        elsewhere, changed = await self._mark_up_to(log, views, position_in)
        own = await position_in(log)
        if own.is_zero and not changed:
            return await self._inbox.mark_ids(log, [], elsewhere=elsewhere)
        return await self._inbox.mark_up_to(
            log, own, elsewhere=elsewhere, force=changed
        )

    async def mark_all(self, caller: Caller, player: Player) -> MarkResult:
        """Mark all notifications that are in the inbox now; see `mark_ids`."""
        caller.require_mark(player)
        log = Log(caller.app, player)
        views = await self._audiences.views_of(log)
        elsewhere, changed = await self._mark_up_to(log, views, None)
        return await self._inbox.mark_all(log, elsewhere=elsewhere, force=changed)

    async def delete(
        self, caller: Caller, player: Player, notification_id: str
    ) -> None:
        """
        Delete a notification from one player's inbox; other players keep theirs.

        The player's streams are notified. Idempotent as long as the notification is
        kept.

        Raises:
            Forbidden: The caller may not mark this inbox.
            NotFound: The inbox has no such notification.
            StoreUnavailable: Nothing was deleted.
            OutcomeUnknown: A retry is safe.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        position = decode_id(notification_id)
        if position is None:
            raise NotFound("the notification")
        if await self._inbox.withdraw(log, position) is not None:
            return
        views = await self._audiences.views_of(log)
        lookups = await self._audiences.views.find([(v.log, [position]) for v in views])
        for view, lookup in zip(views, lookups, strict=True):
            in_log = position._replace(epoch=lookup.epoch)
            if not (lookup.live or lookup.ended) or not view.reaches(in_log):
                continue
            if lookup.live and position.offset not in view.deleted:
                # Streams are notified first: if the node dies before the change, the
                # caller retries, and streams are notified twice, which is harmless.
                await self._inbox.append_withdrawal(log, position.id)
                await self._audiences.views.change(
                    log,
                    view.log,
                    "deleted",
                    lookup.live,
                    epoch=lookup.epoch,
                    floor=lookup.floor,
                )
            return
        raise NotFound("the notification")

    async def purge(
        self, caller: Caller, player: Player, notification_id: str, *, reason: str = ""
    ) -> None:
        """
        Delete a notification from a player's inbox, and its text from the store.

        Idempotent as long as the notification is kept.

        Args:
            caller: The caller.
            player: The player.
            notification_id: The notification.
            reason: Why, for the audit log.

        Raises:
            Forbidden: The caller may not write to this player.
            Invalid: It was sent to an audience, which keeps its text.
            NotFound: The inbox has no such notification.
            StoreUnavailable: Nothing was purged.
            OutcomeUnknown: A retry is safe.

        """
        assert self._purging is not None
        caller.require_write(player)
        log = Log(caller.app, player)
        async with recording(
            self._audit, caller, "purge", player=player, reason=reason
        ) as details:
            details["id"] = notification_id
            position = decode_id(notification_id)
            if position is None:
                raise NotFound("the notification")
            if await self._purging.purge(log, position):
                return
            views = await self._audiences.views_of(log)
            logs = [(view.log, [position]) for view in views]
            if any(
                it.live or it.ended for it in await self._audiences.views.find(logs)
            ):
                raise Invalid(FieldError(("query", "purge"), _OF_AUDIENCE))
            raise NotFound("the notification")

    async def unread_counts(
        self, caller: Caller, players: Sequence[Player]
    ) -> list[int]:
        """
        Return the number of unread notifications of each player, in their order.

        Raises:
            Forbidden: The caller may not read one of the inboxes.
            StoreUnavailable: The store cannot be read.

        """
        for player in players:
            caller.require_read(player)
        logs = [Log(caller.app, player) for player in players]
        own = await self._inbox.read_many(
            [ReadAfter(log, Start.LATEST, limit=0) for log in logs]
        )
        elsewhere = await self._audiences.unread_counts(logs)
        counts = []
        for in_own, in_audiences in zip(own, elsewhere, strict=True):
            if isinstance(in_own, Exception):
                raise in_own
            if isinstance(in_audiences, Exception):
                raise in_audiences
            counts.append(in_own.unread + in_audiences)
        return counts

    def _positions(
        self, caller: Caller, player: Player, ids: Sequence[str], ids_max: int
    ) -> list[Position]:
        caller.require_mark(player)
        if len(ids) > ids_max:
            problem = f"must have at most {ids_max} items, has {len(ids)}"
            raise Invalid(FieldError(("body", "ids"), problem))
        return [position for text in ids if (position := decode_id(text))]

    async def _change_marks(
        self, log: Log, change: Literal["ids", "unread"], positions: Sequence[Position]
    ) -> tuple[int, bool]:
        """
        Change marks in the views; return their unread count, and whether any changed.
        """
        views = await self._audiences.views_of(log)
        audiences = await self._audiences_with_entries(views)
        if not audiences:
            return 0, False
        with_entries = [
            view
            for view in views
            if view.log in audiences and not audiences[view.log].head.is_zero
        ]
        lookups = await self._audiences.views.find(
            [(view.log, positions) for view in with_entries]
        )
        changed = False
        for view, lookup in zip(with_entries, lookups, strict=True):
            if not lookup.live:
                continue
            offsets = await self._audiences.views.change(
                log,
                view.log,
                change,
                lookup.live,
                epoch=lookup.epoch,
                floor=lookup.floor,
            )
            if offsets:
                changed = True
                by = 1 if change == "ids" else -1
                runs = [range(offset, offset + 1) for offset in offsets]
                await self._audiences.views.count("read", [(view.log, runs)], by=by)
        if changed:
            views = await self._audiences.views_of(log)
        return unread_count(views, audiences), changed

    async def _mark_up_to(
        self,
        log: Log,
        views: Sequence[View],
        position_in: Callable[[Log], Awaitable[Position]] | None,
    ) -> tuple[int, bool]:
        """
        Mark up to a position in each view, or up to its head; see `_change_marks`.
        """
        audiences = await self._audiences_with_entries(views)
        marks = []
        for view in views:
            audience = audiences.get(view.log)
            if audience is None or not view.unread(audience):
                continue
            position = (
                audience.head if position_in is None else await position_in(view.log)
            )
            if position.epoch != audience.head.epoch:
                continue
            offset = min(position.offset, audience.head.offset)
            marks.append((view.log, offset, audience.head.epoch, audience.floor))
        runs = await self._audiences.views.mark_up_to(log, marks) if marks else []
        changes = [(mark[0], of_log) for mark, of_log in zip(marks, runs, strict=True)]
        changed = any(runs)
        if changed:
            await self._audiences.views.count("read", changes)
            views = await self._audiences.views_of(log)
        return unread_count(views, audiences) if audiences else 0, changed

    async def _audiences_with_entries(
        self, views: Sequence[View]
    ) -> dict[Log, Audience]:
        """
        Return the audiences of views; empty if none of them has ever had an entry.
        """
        read = await self._audiences.read_each(view.log for view in views)
        audiences = {}
        for log, audience in read.items():
            if isinstance(audience, Audience):
                audiences[log] = audience
            elif isinstance(audience, ResponseError):
                # Damaged: as on pages, all else is marked and counted.
                self._inbox.damage.note("inboxes", log.name, audience)
            else:
                raise audience
        if all(audience.head.is_zero for audience in audiences.values()):
            return {}
        return audiences

"""
Listing an inbox by number: the entries that match, from the n-th on, and how many.

Decides how much of an inbox is read for a list. Cursors make a page cheap wherever it
is; vendors whose lists have page numbers, totals and filters need entries counted. The
store can count all of them, and those that are read or not, without looking at any.
What entries say is nothing it knows of: a list that is filtered by that reads the whole
inbox, in portions, so that nobody has to wait for it, and then asks for the few that
are shown.

Where audiences have said something to the player, the n-th entry is known only by
walking there. How many there are still is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from ...core.access.rights import Caller
from ...model import Log, Player
from ...store.logs.inbox import PageEntry
from ...store.logs.numbered import NumberedLists, NumberedPage
from .audiences import PlayerAudiences, unread_count
from .merge import MergedInbox

__all__ = ["FragmentFilter", "NumberedInbox", "NumberedPage"]

FragmentFilter = Callable[[bytes], bool]
"""Whether a list shows a notification, by its fragment."""


class NumberedInbox:
    """
    What a caller may list.

    Args:
        lists: Players' own logs by number.
        merged: The same with what their audiences were sent.
        audiences: Who belongs to what.

    """

    def __init__(
        self, lists: NumberedLists, merged: MergedInbox, audiences: PlayerAudiences
    ) -> None:
        self._lists = lists
        self._merged = merged
        self._audiences = audiences

    async def page(
        self,
        caller: Caller,
        player: Player,
        *,
        skip: int = 0,
        count: int,
        read: bool | None = None,
        matches: FragmentFilter | None = None,
    ) -> NumberedPage:
        """
        Return up to `count` entries after the first `skip` of those that match.

        Args:
            caller: Who reads.
            player: Whose inbox.
            skip: Entries that match and are not wanted.
            count: Entries that are.
            read: Whether they have a read mark; None for both.
            matches: What else they have to be; None for nothing.

        Raises:
            Forbidden: The caller may not read this inbox.
            StoreUnavailable: It cannot be read now.

        """
        caller.require_read(player)
        log = Log(caller.app, player)
        views = await self._audiences.views_of(log)
        audiences = await self._audiences.read(view.log for view in views)
        visible = sum(view.shown(audiences[view.log]) for view in views)
        if not visible:
            return await self._own(log, skip, count, read, matches)
        total = None
        if matches is None:
            own = await self._lists.page(log, skip=0, count=0, read=read)
            unread_in_audiences = unread_count(views, audiences)
            total = (
                own.total
                + {
                    None: visible,
                    False: unread_in_audiences,
                    True: visible - unread_in_audiences,
                }[read]
            )
        return await self._by_walking(log, skip, count, read, matches, total)

    async def _own(
        self,
        log: Log,
        skip: int,
        count: int,
        read: bool | None,
        matches: FragmentFilter | None,
    ) -> NumberedPage:
        offsets: list[int] = []
        if matches is not None:
            walk = self._lists.walk(log)
            offsets = [offset async for offset, fragment in walk if matches(fragment)]
            if not offsets:
                return NumberedPage(0, [])
        return await self._lists.page(
            log, skip=skip, count=count, read=read, offsets=offsets
        )

    async def _by_walking(
        self,
        log: Log,
        skip: int,
        count: int,
        read: bool | None,
        matches: FragmentFilter | None,
        total: int | None,
    ) -> NumberedPage:
        """Walk to what is wanted, or to the end where nobody knows how many match."""
        entries: list[PageEntry] = []
        matching = 0
        async for entry in self._merged.walk(log):
            if read is not None and bool(entry.read_at_ms) is not read:
                continue
            if matches is not None and not matches(entry.entry.fragment):
                continue
            matching += 1
            if matching > skip and len(entries) < count:
                entries.append(entry)
            if total is not None and len(entries) == count:
                return NumberedPage(total, entries)
        return NumberedPage(matching if total is None else total, entries)

"""
Listing an inbox by number: the entries that match, from the n-th on, and how many.

Decides how much of an inbox is read for a list. Cursors make a page cheap wherever it
is; vendors whose lists have page numbers, totals and filters need entries counted. The
store can count all of them, and those that are read or not, without looking at any.
What entries say is nothing it knows of: a list that is filtered by that reads the whole
inbox, in portions, so that nobody has to wait for it, and then asks for the few that
are shown.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.access import Caller
from ..model import Log, Player
from ..store.lists import Listed, Lists

__all__ = ["Listed", "Listing", "Matches"]

Matches = Callable[[bytes], bool]
"""Whether a list shows a notification, by its fragment."""


class Listing:
    """What a caller may list."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    async def page(
        self,
        caller: Caller,
        player: Player,
        *,
        skip: int = 0,
        count: int,
        read: bool | None = None,
        matches: Matches | None = None,
    ) -> Listed:
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
            StoreAway: It cannot be read now.

        """
        caller.require_read(player)
        log = Log(caller.app, player)
        offsets: list[int] = []
        if matches is not None:
            walk = self._lists.walk(log)
            offsets = [offset async for offset, found in walk if matches(found)]
            if not offsets:
                return Listed(0, [])
        return await self._lists.page(
            log, skip=skip, count=count, read=read, offsets=offsets
        )

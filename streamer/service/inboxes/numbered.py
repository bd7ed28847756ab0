"""
Pages by number: the matching entries of an inbox from the n-th on, and their total.

Decides how much of an inbox is read for a page. Pages by cursor are cheap anywhere;
vendors whose lists have page numbers, totals and filters need entries to be counted.
The store counts all entries, and the read or unread ones, without reading any. It does
not know their content: a list filtered by content reads the whole inbox, in portions,
so that other commands run in between, and then the few entries of the page.

If a player has entries of audiences, its n-th entry is found only by walking to it. The
total is still counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from redis.exceptions import ResponseError

from ...core.access.rights import Caller
from ...core.streams.views import Audience
from ...model import Log, Player
from ...store.logs.inbox import PageEntry
from ...store.logs.numbered import NumberedLists, NumberedPage
from .audiences import PlayerAudiences, unread_count
from .merge import MergedInbox

__all__ = ["FragmentFilter", "NumberedInbox", "NumberedPage"]

FragmentFilter = Callable[[bytes], bool]
"""Returns whether a list shows a notification, by its fragment."""


class NumberedInbox:
    """
    The lists of inboxes by number, with the rights of a caller.

    Args:
        lists: The players' own logs by number.
        merged: The inboxes merged with the logs of audiences.
        audiences: The audiences of players.

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
        Return up to `count` matching entries after the first `skip`, and their total.

        O(entries kept); the entries themselves are read only if `matches` is given or
        the player has entries of audiences.

        Args:
            caller: The reader.
            player: The player whose inbox is listed.
            skip: The number of matching entries to skip.
            count: The maximum number of entries.
            read: Whether entries have a read mark; None for both.
            matches: Another filter; None for none.

        Raises:
            Forbidden: The caller may not read this inbox.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_read(player)
        log = Log(caller.app, player)
        views = await self._audiences.views_of(log)
        audiences = await self._readable(view.log for view in views)
        visible = sum(
            view.shown(audiences[view.log]) for view in views if view.log in audiences
        )
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

    async def _readable(self, logs: Iterable[Log]) -> dict[Log, Audience]:
        """Return the audiences whose logs are not damaged, as pages show them."""
        audiences = {}
        for log, audience in (await self._audiences.read_each(logs)).items():
            if isinstance(audience, Audience):
                audiences[log] = audience
            elif not isinstance(audience, ResponseError):
                raise audience
        return audiences

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
        """Walk to the end of the page, or of the inbox if the total is not known."""
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

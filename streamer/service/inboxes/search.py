"""
Search in an inbox: pages of matching entries, newest first or oldest first.

Decides how many entries are scanned for one page, and where the next one begins. The
store does not know the content of entries, so a page of matching ones is read in
portions and may end before it is full; the caller continues from there. Knows inboxes.
Knows nothing of the filters that a surface offers.

Newest first, pages are divided by time alone, as all pages are. Oldest first, they are
divided by cursors, as streams are: no entry that is appended meanwhile, in any of the
player's logs, is skipped. If a cursor is no longer valid, the page has a gap and
continues with newer entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Start
from ...model import ZERO, Entry, Gap, Log, Player
from ...store.logs.inbox import PageEntry
from .audiences import PlayerAudiences
from .inbox import InboxOperations
from .merge import EntriesAfter, MergedPage

__all__ = ["SCANNED_MAX", "EntryFilter", "InboxSearch", "SearchPage"]

SCANNED_MAX: Final = 1_000
"""Entries scanned for one page of matching ones."""

SCAN_PAGE_ENTRIES: Final = 100

EntryFilter = Callable[[PageEntry], bool]

_NOTHING: Final = ZERO.order


class SearchPage(NamedTuple):
    """
    A page of matching entries. `state` is that of the inbox at the first read.

    `entries` is None if the caller's version is current. `next` is the cursor of the
    next page, None at the end. With a `gap`, some entries after the caller's cursor are
    no longer kept.
    """

    state: MergedPage
    entries: list[PageEntry] | None
    next: Cursor | None = None
    gap: Gap | None = None


class _Target(NamedTuple):
    caller: Caller
    player: Player


class _StartPoint(NamedTuple):
    """
    Where to read from, and the gap if that is not the caller's cursor.

    Entries up to the order `seen_up_to` are skipped.
    """

    read_from: Cursor | Start
    gap: Gap | None = None
    seen_up_to: tuple[int, int, int] = _NOTHING


class InboxSearch:
    """
    The searches in inboxes. All methods raise Forbidden and StoreUnavailable.

    Args:
        inboxes: The operations on inboxes.
        audiences: The audiences of players.

    """

    def __init__(self, inboxes: InboxOperations, audiences: PlayerAudiences) -> None:
        self._inboxes = inboxes
        self._audiences = audiences

    async def newest_first(
        self,
        caller: Caller,
        player: Player,
        *,
        newest: Cursor | None,
        oldest: Cursor | None,
        count: int,
        matches: EntryFilter | None,
        version: str = "",
    ) -> SearchPage:
        """
        Read a page of matching entries, or of all, older than `newest`.

        It ends after `SCANNED_MAX` entries. So it may have fewer than `count`, or none,
        and still be followed by another page.
        """
        state = page = await self._inboxes.page(
            caller,
            player,
            newest=newest,
            newest_included=False,
            oldest=oldest,
            count=count if matches is None else SCAN_PAGE_ENTRIES,
            version=version,
        )
        if state.entries is None:
            return SearchPage(state, None)
        if matches is None:
            # Another page follows only if this one has an entry.
            follows = page.following is not None
            last = Cursor(state.entries[-1].entry.position) if follows else None
            return SearchPage(state, state.entries, last)
        matching: list[PageEntry] = []
        scanned = 0
        while True:
            entries = page.entries or []
            for i, entry in enumerate(entries):
                if matches(entry):
                    matching.append(entry)
                if len(matching) == count and i + 1 < len(entries):
                    return SearchPage(state, matching, Cursor(entry.entry.position))
            scanned += len(entries)
            if page.following is None:
                return SearchPage(state, matching)
            if len(matching) == count or scanned >= SCANNED_MAX:
                return SearchPage(state, matching, Cursor(entries[-1].entry.position))
            page = await self._inboxes.page(
                caller,
                player,
                newest=Cursor(page.following),
                oldest=oldest,
                count=SCAN_PAGE_ENTRIES,
            )

    async def oldest_first(
        self,
        caller: Caller,
        player: Player,
        *,
        after: Cursor | None,
        count: int,
        matches: EntryFilter | None,
        version: str = "",
    ) -> SearchPage:
        """
        Read a page of matching entries, or of all, after the cursor `after`.

        Otherwise as `newest_first`.
        """
        target = _Target(caller, player)
        state = await self._inboxes.page(caller, player, count=1, version=version)
        if state.entries is None:
            return SearchPage(state, None)
        start = await self._start_point(target, after)
        read_from, gap = start.read_from, start.gap
        portion = count if matches is None else SCAN_PAGE_ENTRIES
        matching: list[PageEntry] = []
        scanned = 0
        while True:
            read = await self._inboxes.entries_after(*target, read_from, count=portion)
            if read.gap is not None:
                # The cursor was valid a moment ago.
                read_from, gap = Start.EARLIEST, read.gap
                continue
            for marked_entry in await self._with_marks(target, read.entries):
                if marked_entry.entry.order <= start.seen_up_to:
                    continue
                if matches is None or matches(marked_entry):
                    matching.append(marked_entry)
                if len(matching) == count:
                    next_ = await self._cursor_after(
                        target, read_from, read, marked_entry.entry
                    )
                    return SearchPage(state, matching, next_, gap)
            scanned += len(read.entries)
            if not read.more or scanned >= SCANNED_MAX:
                next_ = read.cursor if read.more else None
                return SearchPage(state, matching, next_, gap)
            read_from = read.cursor

    async def _start_point(self, target: _Target, after: Cursor | None) -> _StartPoint:
        """Return where to read from for the cursor `after`."""
        if after is None:
            return _StartPoint(Start.EARLIEST)
        is_id = after.own.epoch == 0 and not after.own.is_zero
        seen_up_to = after.own.order if is_id else _NOTHING
        read = await self._inboxes.entries_after(*target, after, count=1)
        if read.gap is None:
            return _StartPoint(after, seen_up_to=seen_up_to)
        gap: Gap | None = read.gap
        if is_id and gap in (Gap.AHEAD, Gap.DIVERGED):
            # None of the logs has the id: its entry is no longer kept, or is of an
            # audience that was left or muted. That is a gap for cursors only.
            gap = None
        log = Log(target.caller.app, target.player)
        before = await self._audiences.position_before(log, after.own.at_us)
        read_from = after._replace(own=before)
        again = await self._inboxes.entries_after(*target, read_from, count=1)
        return _StartPoint(
            read_from if again.gap is None else Start.EARLIEST,
            gap,
            seen_up_to=after.own.order,
        )

    async def _with_marks(
        self, target: _Target, entries: list[Entry]
    ) -> list[PageEntry]:
        """Return entries with their marks, without those that have ended meanwhile."""
        if not entries:
            return []
        first, last = entries[0].position, entries[-1].position
        oldest = Cursor(first._replace(tag=first.tag - 1))
        newest: Cursor | None = Cursor(last)
        marked: dict[str, PageEntry] = {}
        while newest is not None:
            page = await self._inboxes.page(
                *target, newest=newest, oldest=oldest, count=len(entries)
            )
            marked |= {entry.entry.id: entry for entry in page.entries or ()}
            newest = None if page.following is None else Cursor(page.following)
        return [marked[entry.id] for entry in entries if entry.id in marked]

    async def _cursor_after(
        self,
        target: _Target,
        read_from: Cursor | Start,
        read: EntriesAfter,
        entry: Entry,
    ) -> Cursor | None:
        """Return the cursor after an entry that was read, None if it is the last."""
        if entry.order == read.entries[-1].order:
            return read.cursor if read.more else None
        # The positions in all logs are known only after a read up to the entry. If
        # entries have ended meanwhile, the same count would read beyond it.
        count = _count_to(entry, read.entries)
        while count:
            again = await self._inboxes.entries_after(*target, read_from, count=count)
            reached = _count_to(entry, again.entries)
            if reached == len(again.entries):
                return again.cursor
            count = reached
        return read_from if isinstance(read_from, Cursor) else Cursor(ZERO)


def _count_to(last: Entry, entries: list[Entry]) -> int:
    return sum(entry.order <= last.order for entry in entries)

"""
Search in an inbox: pages of matching entries, newest first or oldest first.

Decides how many entries are scanned for one page, and where the next one begins. The
store does not know the content of entries, so a page of matching ones is read in
portions and may end before it is full; the caller continues from there. Knows inboxes.
Knows nothing of the filters that a surface offers.

What a search has learned is remembered: where the first match of a filter is, or that
there is none. Entries never change, and so the next search has to look only at those
that have arrived since.

Newest first, pages are divided by time alone, as all pages are. Oldest first, they are
divided by cursors, as streams are: no entry that is appended meanwhile, in any of the
player's logs, is skipped. If a cursor is no longer valid, the page has a gap and
continues with newer entries. Such a page shows the inbox as of its cursor: an entry
that arrives while it is read is left to the page after that cursor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Start
from ...model import ZERO, Entry, Gap, Log, Player, Position
from ...store.logs.inbox import PageEntry
from .inbox import InboxOperations
from .merge import MergedPage

__all__ = ["SCANNED_MAX", "EntryFilter", "InboxSearch", "SearchPage"]

SCANNED_MAX: Final = 1_000
"""Entries scanned for one page of matching ones."""

LOOKED_MAX: Final = 10_000
"""
Entries scanned if none of the first `SCANNED_MAX` matches, to learn whether one does. A
log keeps as many by default.
"""

SCAN_PAGE_ENTRIES: Final = 100
SCAN_PAGE_MAX: Final = 500
"""Entries of the first and of the longest portion that is scanned."""

REMEMBERED_MAX: Final = 10_000
"""Searches that are remembered, with a few hundred bytes each."""

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


class _Learned(NamedTuple):
    """
    What a search has learned: that no entry up to `cursor` matches above `first`.

    `first` is the first entry that does, or, if `is_open`, the first that was not
    scanned any more; None if there is none.
    """

    cursor: Cursor
    first: Position | None
    is_open: bool = False


class _Target(NamedTuple):
    caller: Caller
    player: Player


class _Found:
    """
    The matching entries of one page, and whether it is known that no other follows.

    A page is complete when one more entry matches: only then another page follows. It
    is complete without any entry if the first to match is beyond `SCANNED_MAX`.

    Args:
        count: The maximum number of entries.
        matches: The filter, None for all entries.
        unread: How many unread entries there are from here on, if only these match.

    """

    def __init__(
        self, count: int, matches: EntryFilter | None, unread: int | None
    ) -> None:
        self.entries: list[PageEntry] = []
        self.last: PageEntry | None = None
        """The last entry that was passed over or found."""
        self._scanned = 0
        self._count = count
        self._matches = matches
        self._unread_left = unread

    @property
    def exhausted(self) -> bool:
        """Whether no entry that comes later can match."""
        return self._unread_left is not None and self._unread_left <= 0

    @property
    def left(self) -> int:
        """How many more entries may be scanned for the page."""
        return (SCANNED_MAX if self.entries else LOOKED_MAX) - self._scanned

    @property
    def is_long(self) -> bool:
        """Whether the page has to end here."""
        return self.left <= 0

    def add(self, entry: PageEntry) -> bool:
        """Take an entry, and return whether the page was complete before it."""
        self._scanned += 1
        if not entry.read_at_ms and self._unread_left is not None:
            self._unread_left -= 1
        matches = self._matches is None or self._matches(entry)
        is_late = not self.entries and self._scanned > SCANNED_MAX
        if matches and (is_late or len(self.entries) == self._count):
            return True
        if matches:
            self.entries.append(entry)
        self.last = entry
        return False


class InboxSearch:
    """
    The searches in inboxes. All methods raise Forbidden and StoreUnavailable.

    Args:
        inboxes: The operations on inboxes.

    """

    def __init__(self, inboxes: InboxOperations) -> None:
        self._inboxes = inboxes
        # The least recently used first.
        self._learned: OrderedDict[Hashable, _Learned] = OrderedDict()

    async def newest_first(
        self,
        caller: Caller,
        player: Player,
        *,
        newest: Cursor | None,
        oldest: Cursor | None,
        count: int,
        matches: EntryFilter | None,
        only_unread: bool = False,
        version: str = "",
        remembered_as: Hashable = None,
    ) -> SearchPage:
        """
        Read a page of matching entries, or of all, older than `newest`.

        It ends after `SCANNED_MAX` entries, so it may have fewer than `count` and still
        be followed by another page. It has none and is followed by another one only if
        an entry matches beyond them, or none of the first `LOOKED_MAX` does. With
        `only_unread`, which says that `matches` refuses what was read, it ends for good
        when as many unread entries were found as there are. With `remembered_as`, which
        stands for a filter that looks at nothing but the notification, a first page
        begins where an earlier one has found the first match.
        """
        if remembered_as is not None and newest is None and oldest is None:
            assert matches is not None
            key = (Log(caller.app, player), remembered_as)
            target = _Target(caller, player)
            found = _Found(count, matches, None)
            return await self._remembered(target, key, found, count, version)
        state = page = await self._inboxes.page(
            caller,
            player,
            newest=newest,
            newest_included=False,
            oldest=oldest,
            count=count,
            version=version,
            only_unread=only_unread,
        )
        if state.entries is None:
            return SearchPage(state, None)
        if matches is None:
            # Another page follows only if this one has an entry.
            follows = page.following is not None
            last = Cursor(state.entries[-1].entry.position) if follows else None
            return SearchPage(state, state.entries, last)
        unread = None
        if only_unread:
            unread = state.unread
            if newest is not None and page.following is not None:
                unread = await self._inboxes.unread_between(
                    caller, player, before=newest.own
                )
        found = _Found(count, matches, unread)
        target = _Target(caller, player)
        return await self._scan(
            target, state, page, oldest, found, only_unread=only_unread
        )

    async def _scan(
        self,
        target: _Target,
        state: MergedPage,
        page: MergedPage,
        oldest: Cursor | None,
        found: _Found,
        *,
        only_unread: bool = False,
    ) -> SearchPage:
        """Take the entries of `page` and those that follow until `found` has enough."""
        portion = SCAN_PAGE_ENTRIES
        while True:
            entries = page.entries or []
            for entry in entries:
                if found.add(entry):
                    assert found.last is not None
                    last = Cursor(found.last.entry.position)
                    return SearchPage(state, found.entries, last)
            if page.following is None or found.exhausted:
                return SearchPage(state, found.entries)
            if found.is_long:
                last = Cursor(entries[-1].entry.position)
                return SearchPage(state, found.entries, last)
            page = await self._inboxes.page(
                *target,
                newest=Cursor(page.following),
                oldest=oldest,
                count=min(portion, found.left),
                only_unread=only_unread,
            )
            portion = min(2 * portion, SCAN_PAGE_MAX)

    async def _remembered(
        self,
        target: _Target,
        key: Hashable,
        found: _Found,
        count: int,
        version: str,
    ) -> SearchPage:
        """Read a first page, and remember where its first match was."""
        learned = self._learned.get(key)
        oldest = learned.cursor if learned is not None else None
        state = await self._inboxes.page(
            *target, oldest=oldest, count=count, version=version
        )
        if state.entries is None:
            return SearchPage(state, None)
        if learned is not None and not _has_logs_of(state, learned):
            # The player has joined, left or unmuted an audience since.
            oldest = learned = None
            state = await self._inboxes.page(*target, count=count)
            assert state.entries is not None
        result = await self._scan(target, state, state, oldest, found)
        if result.next is None and learned is not None and learned.first is not None:
            # All that is new was scanned, and the page has room.
            first = Cursor(learned.first)
            if learned.is_open and not found.entries:
                result = SearchPage(state, [], first)
            else:
                page = await self._inboxes.page(
                    *target, newest=first, count=SCAN_PAGE_ENTRIES
                )
                result = await self._scan(target, state, page, None, found)
        self._learn(key, state, result)
        return result

    def _learn(self, key: Hashable, state: MergedPage, result: SearchPage) -> None:
        if state.unreadable:
            return
        learned = _Learned(state.cursor, None)
        if result.entries:
            learned = learned._replace(first=result.entries[0].entry.position)
        elif result.next is not None:
            learned = learned._replace(first=result.next.own, is_open=True)
        self._learned[key] = learned
        self._learned.move_to_end(key)
        if len(self._learned) > REMEMBERED_MAX:
            self._learned.popitem(last=False)

    async def oldest_first(
        self,
        caller: Caller,
        player: Player,
        *,
        after: Cursor | None,
        count: int,
        matches: EntryFilter | None,
        only_unread: bool = False,
        version: str = "",
    ) -> SearchPage:
        """
        Read a page of matching entries, or of all, after the cursor `after`.

        Without a `next` it has all of them up to the cursor of its state. Otherwise as
        `newest_first`.
        """
        target = _Target(caller, player)
        state = await self._inboxes.page(caller, player, count=1, version=version)
        if state.entries is None:
            return SearchPage(state, None)
        read_from: Cursor | Start = Start.EARLIEST
        gap, seen_up_to, unread = None, _NOTHING, state.unread
        if after is not None:
            read_from, gap = await self._inboxes.recover(*target, after)
            if _is_id(after):
                # Between the logs pages are divided by order, as newest first.
                seen_up_to = after.own.order
                if gap in (Gap.AHEAD, Gap.DIVERGED):
                    # None of the logs has the id: its entry is of an audience that was
                    # left, or of a log that was lost. That is a gap for cursors only.
                    gap = None
            if only_unread and unread:
                unread = await self._inboxes.unread_between(*target, after=read_from)
        # One more than the page has shows whether another one follows.
        portion = count + 1 if matches is None else SCAN_PAGE_ENTRIES
        found = _Found(count, matches, unread if only_unread else None)
        while not found.exhausted:
            # What arrives after the first read is in neither its cursor nor its count.
            read = await self._inboxes.entries_after(
                *target, read_from, count=portion, up_to=state.cursor
            )
            if read.gap is not None:
                # The cursor was valid a moment ago.
                assert isinstance(read_from, Cursor)
                read_from, _ = await self._inboxes.recover(*target, read_from)
                gap = gap or read.gap
                continue
            for entry in await self._with_marks(target, read.entries):
                if entry.entry.order <= seen_up_to:
                    continue
                if found.add(entry):
                    assert found.last is not None
                    next_ = read.cursor_after(found.last.entry)
                    return SearchPage(state, found.entries, next_, gap)
            if not read.more or found.exhausted:
                break
            if found.is_long:
                return SearchPage(state, found.entries, read.cursor, gap)
            read_from = read.cursor
        return SearchPage(state, found.entries, None, gap)

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


def _has_logs_of(state: MergedPage, learned: _Learned) -> bool:
    return state.cursor.audiences.keys() == learned.cursor.audiences.keys()


def _is_id(cursor: Cursor) -> bool:
    own = cursor.own
    return own.epoch == 0 and not own.is_zero and not cursor.audiences

"""
One page from several logs: which parts of which logs are read, and what is shown.

Decides in which logs the entries of a page can be, how many are read of each, and when
the page is complete. Knows the states of logs, a player's views, and ranges of logs.
Knows nothing of how a player's own log is read, nor of read times.

The entries of a log descend from its head, so nothing older than the page's last entry
has to be read. That entry is not known before the logs are read. So every log that can
have one on the page is read a little, all in one packet. Then a log is read on only if
what is not known of it may be newer than the last entry that the page would have. Two
rounds are usual; bounds on rounds and bytes end a page early, and the next one goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ...core.streams.cursor import Cursor, audience_key
from ...core.streams.views import View
from ...model import TAG_MAX, ZERO, Log, Position
from ...store.logs.entries import stream_id
from ...store.logs.inbox import PAGE_BYTES, Page, PageEntry
from ...store.logs.newest_entries import NewestEntries, Order
from ...store.logs.page_reads import EARLY_ITEMS, HEAVY_BYTES, PageReads
from ...store.logs.shared_logs import EntryRange, SharedLog

__all__ = ["Bounds", "PageMerge", "own_alone"]

ROUNDS_MAX: Final = 8
"""Rounds of reads for one page. Only long runs of hidden entries take so many."""

PORTION_MIN: Final = 4
PORTION_MAX: Final = 400
"""Entries that are read of one log in a round."""


class Bounds(NamedTuple):
    """The bounds of a page: a position in all logs, and a cursor after all entries."""

    newest: Position | None
    newest_included: bool
    oldest: Cursor | None

    def oldest_in(self, audience: Log | None) -> Position | None:
        """Return the position that all entries of a log have to be after."""
        if self.oldest is None:
            return None
        if audience is None:
            return self.oldest.own
        named = self.oldest.audiences.get(audience_key(audience))
        return named or self.oldest.own

    def reaches(self, position: Position, audience: Log | None) -> bool:
        """Whether a position is within the lower bound."""
        oldest = self.oldest_in(audience)
        return oldest is None or position.order > oldest.order

    def has(self, order: Order, audience: Log | None) -> bool:
        """Whether an entry is within the bounds, by id."""
        if self.newest is not None:
            newest = self.newest.order
            if order > newest or (order == newest and not self.newest_included):
                return False
        oldest = self.oldest_in(audience)
        return oldest is None or order > oldest.order


_Candidate = tuple[Order, Any, "_Source | None"]
"""
An entry that may be on the page: its order, its item, and the log that it is from. Of
the player's own log it is the page entry, and None. Most are not shown.
"""

_order: Final = itemgetter(0)

_LOWEST: Final = ZERO.order


class _Source:
    """
    An audience's log, and how far it was read.

    `unknown` is not below the order of anything that was not read; None if that is
    nothing. A range of that begins at `begin`, and ends above `lower`. `begins_at` is
    the order of its head, if that is known to be shown and was not read, and `hidden`
    the number of entries that were read and are not shown. What is read goes to
    `newest`, too, if that ends where a range begins.
    """

    __slots__ = (
        *("begin", "begins_at", "bytes", "count", "hidden", "lower", "newest"),
        *("portion", "shared", "unknown", "unread", "view"),
    )

    def __init__(
        self,
        view: View,
        shared: SharedLog,
        unread: int,
        newest: NewestEntries | None,
    ) -> None:
        self.view = view
        self.shared = shared
        self.newest = newest
        self.unknown: Order | None
        if newest is None:
            head = shared.audience.head
            self.unknown, self.begin = head.order, stream_id(head)
        else:
            self.unknown, self.begin = newest.unknown, newest.begin
        self.lower = _LOWEST
        self.begins_at: Order | None = None
        self.unread = unread
        self.portion = 0
        self.hidden = 0
        self.bytes = 0
        self.count = 0

    def note_head(self) -> None:
        """Note that the log begins with an entry that the player sees, if it does."""
        newest = self.newest
        if newest is not None and newest.entries:
            order = newest.entries[0][0]
            if order[1] > self.view.joined.offset and order[1] not in self.view.deleted:
                self.begins_at = order
            return
        audience, offset = self.shared.audience, self.shared.audience.head.offset
        if self.shared.is_complete and not (
            offset in self.view.deleted or audience.has_ended(offset)
        ):
            self.begins_at = audience.head.order


def own_alone(
    own: Page, bounds: Bounds, count: int
) -> tuple[list[PageEntry], Position | None]:
    """
    Return the entries of a page of the player's own log alone, and where the next
    begins.

    It is what `PageMerge` returns if no audience has ever had an entry.
    """
    entries, following = own.entries or [], own.following
    if bounds.newest is not None or bounds.oldest is not None:
        entries = [entry for entry in entries if bounds.has(entry.order, None)]
        if following is not None and not bounds.reaches(following, None):
            following = None
    if len(entries) > count:
        return entries[:count], entries[count].entry.position
    return entries, following


class PageMerge:
    """
    The merge of one page.

    `add` the logs, `read`, and then take the results.

    Args:
        reads: Reads ranges of logs.
        bounds: The bounds of the page.
        count: The maximum number of entries.
        own: The page of the player's own log, of `count` entries or one more.
        only_unread: Whether logs without unread entries are left out.

    """

    def __init__(
        self,
        reads: PageReads,
        bounds: Bounds,
        count: int,
        own: Page,
        *,
        only_unread: bool,
    ) -> None:
        self._reads = reads
        self._bounds = bounds
        self._is_first = bounds.newest is None and bounds.oldest is None
        self._count = count
        self._only_unread = only_unread
        self._sources: list[_Source] = []
        self._counted: list[_Source] = []
        following = own.following
        if following is not None and not bounds.reaches(following, None):
            following = None
        self._own_following = following
        self._own = own.entries or []
        self._candidates: list[_Candidate] = []
        self.newest: list[PageEntry] = []
        """The entries of the page, newest first."""
        self.done: list[tuple[int, Log, int]] = []
        """
        Those that views say were read, by index, log and offset. `newest` does not know
        when.
        """
        self.following: Position | None = None
        """Where the next page begins; None at the end."""
        self.unread = 0
        """The number of unread entries in the audiences' logs."""
        self.unreadable: list[Log] = []
        """Audiences whose logs turned out to be damaged."""

    def add(self, view: View, shared: SharedLog) -> None:
        """Add an audience's log, and the player's view of it, which is not muted."""
        audience = shared.audience
        head = audience.head
        if head.offset == 0:
            return
        if view.joined.epoch not in (0, head.epoch):
            view = view.at(audience)
        # At most, as long as it is not known what has ended.
        unread = view.unread(audience)
        if self._only_unread and not unread:
            return
        newest = shared.newest if self._is_first else None
        source = _Source(view, shared, unread, newest)
        if unread:
            self._counted.append(source)
        if head.offset < audience.floor or head.offset <= view.joined.offset:
            return
        if self._is_first:
            source.note_head()
            self._sources.append(source)
        else:
            self._add_bounded(source)

    def _add_bounded(self, source: _Source) -> None:
        """Add a log whose head may be beyond the bounds of the page."""
        head, joined = source.shared.audience.head, source.view.joined
        newest = self._bounds.newest
        if not self._bounds.reaches(head, source.view.log):
            return
        if newest is not None and newest.order < head.order:
            if joined.at_us > newest.at_us:
                return
            source.unknown = (*newest.order[:2], TAG_MAX)
            source.begin = stream_id(newest)
        elif self._bounds.has(head.order, source.view.log):
            source.note_head()
        self._sources.append(source)

    async def read(self) -> None:
        """Read what is needed of the logs. Raises StoreUnavailable."""
        self._candidates = [(it.order, it, None) for it in self._own]
        if not self._is_first:
            has = self._bounds.has
            self._candidates = [it for it in self._candidates if has(it[0], None)]
        if self._only_unread and self._incomplete([]):
            await self._read_round([], None, [])
            self._sources = [it for it in self._sources if it.unread]
        cutoff = self._cutoff(self._orders(with_heads=True))
        for source in self._sources:
            if source.newest is not None and source.newest.size:
                self._take_kept(source, source.newest, cutoff)
        for rounds in range(ROUNDS_MAX + 1):
            self._candidates.sort(key=_order, reverse=True)
            orders = self._orders(with_heads=not rounds)
            cutoff = self._cutoff(orders)
            behind = [
                source
                for source in self._sources
                if source.unknown is not None
                and (cutoff is None or source.unknown >= cutoff)
            ]
            if rounds == ROUNDS_MAX or (rounds and self._bytes_read() > PAGE_BYTES):
                behind = []
            if not behind and (rounds or not self._incomplete(behind)):
                break
            await self._read_round(behind, cutoff, orders)
        self._finish()

    def _orders(self, *, with_heads: bool) -> list[Order]:
        """
        Return the orders of entries that the player sees, descending.

        With the heads of logs, of which nothing was read yet.
        """
        orders = [it[0] for it in self._candidates]
        if with_heads:
            heads = [it.begins_at for it in self._sources if it.begins_at is not None]
            if heads:
                orders += heads
                orders.sort(reverse=True)
        return orders

    def _bytes_read(self) -> int:
        return sum(source.bytes for source in self._sources)

    def _cutoff(self, orders: Sequence[Order]) -> Order | None:
        """Return the order below which no entry matters, None if all do."""
        known = [*orders[self._count : self._count + 1]]
        if self._own_following is not None:
            known.append(self._own_following.order)
        return max(known, default=None)

    def _incomplete(self, behind: Sequence[_Source]) -> list[_Source]:
        """Return those whose ended entries have to be known."""
        sources = (*self._counted, *behind)
        missing = [it for it in sources if not it.shared.is_complete]
        return [*{id(it): it for it in missing}.values()]

    async def _read_round(
        self,
        behind: Sequence[_Source],
        cutoff: Order | None,
        orders: Sequence[Order],
    ) -> None:
        incomplete = self._incomplete(behind)
        ascending = [*reversed(orders)]
        ranges = []
        for source in behind:
            assert source.unknown is not None
            newer = len(ascending) - bisect_right(ascending, source.unknown)
            # One more than the page has shows what follows.
            room = max(1, self._count + 1 - newer)
            ranges.append(self._range(source, cutoff, room, len(behind)))
        states, items_of_each = await self._reads.read_shared(
            [(source.view.log, source.shared) for source in incomplete], ranges
        )
        for source, state in zip(incomplete, states, strict=True):
            if isinstance(state, SharedLog):
                source.shared = state
                if self._is_first:
                    source.newest = state.newest
                source.unread = source.view.unread(state.audience)
            else:
                self._drop(source)
        for source, range_, items in zip(behind, ranges, items_of_each, strict=True):
            if not isinstance(items, list):
                self._drop(source)
            elif source in self._sources:
                self._take(source, items, range_, cutoff)

    def _range(
        self, source: _Source, cutoff: Order | None, room: int, logs: int
    ) -> EntryRange:
        if not source.portion:
            source.portion = min(room, EARLY_ITEMS)
            if logs > 2:
                share = -(-2 * (self._count + 1) // logs)
                source.portion = min(source.portion, max(PORTION_MIN, share))
        elif source.bytes > HEAVY_BYTES * source.count:
            source.portion = EARLY_ITEMS
        else:
            source.portion = min(4 * source.portion, PORTION_MAX)
        newest = source.newest
        lower = source.view.joined.order
        if cutoff is not None and cutoff > lower:
            lower = cutoff
        oldest = self._bounds.oldest_in(source.view.log)
        if oldest is not None and oldest.order > lower:
            lower = oldest.order
        log = source.view.log
        limit = source.portion
        if not source.hidden:
            limit = min(limit, room)
        if newest and source.begin == newest.begin and limit <= PORTION_MIN:
            # So few are read for all players, whatever this one needs of them.
            limit, lower = PORTION_MIN, _LOWEST
        source.lower = lower
        at_us, offset, _ = lower
        return EntryRange(log, source.begin, f"{at_us}-{offset}", limit)

    def _take_kept(
        self, source: _Source, newest: NewestEntries, cutoff: Order | None
    ) -> None:
        """Take entries that are kept, down to one that is not newer than `cutoff`."""
        first, deleted = source.view.joined.offset + 1, source.view.deleted
        source.begins_at = None
        for order, item in newest.entries:
            if order[1] < first:
                source.unknown = None
                return
            if cutoff is not None and order < cutoff:
                source.unknown, source.begin = order, item[0].decode()
                return
            if order[1] in deleted:
                source.hidden += 1
            else:
                self._candidates.append((order, item, source))
        source.portion = len(newest.entries)
        if newest.unknown < source.view.joined.order:
            source.unknown = None

    def _take(
        self,
        source: _Source,
        items: list[Any],
        range_: EntryRange,
        cutoff: Order | None,
    ) -> None:
        audience, view, bounds = source.shared.audience, source.view, self._bounds
        log, first, deleted = view.log, view.joined.offset + 1, view.deleted
        may_have_ended = audience.base > audience.floor or bool(audience.ended)
        is_bounded = bounds.newest is not None or bounds.oldest is not None
        if source.newest is not None:
            source.newest.add(range_.newest, items, range_.limit, source.lower)
        for item in items:
            stream_id, fields = item
            at_us, _, offset_text = stream_id.partition(b"-")
            offset = int(offset_text)
            source.bytes += len(fields[3])
            # Without a text it was purged, perhaps after the state was read.
            if (
                not fields[3]
                or offset < first
                or offset in deleted
                or (may_have_ended and audience.has_ended(offset))
            ):
                source.hidden += 1
                continue
            order = int(at_us), offset, int(fields[1])
            if not is_bounded or bounds.has(order, log):
                self._candidates.append((order, item, source))
        source.count += len(items)
        if items:
            source.begin = f"({items[-1][0].decode()}"
        if len(items) == range_.limit:
            # Offsets have no holes.
            source.unknown = int(at_us), offset - 1, TAG_MAX
        elif cutoff is not None:
            source.unknown = cutoff[0], cutoff[1], -1
        else:
            source.unknown = None

    def _drop(self, source: _Source) -> None:
        """Leave out a log that turned out to be damaged."""
        log = source.view.log
        self.unreadable.append(log)
        self._sources = [it for it in self._sources if it is not source]
        self._counted = [it for it in self._counted if it is not source]
        self._candidates = [it for it in self._candidates if it[2] is not source]

    def _finish(self) -> None:
        self.unread = sum([it.unread for it in self._counted])
        unknown = [it.unknown for it in self._sources if it.unknown is not None]
        own_following = self._own_following
        own_order = None if own_following is None else own_following.order
        limit = max([*unknown, own_order] if own_order else unknown, default=None)
        size = 0
        for order, item, source in self._candidates[: self._count]:
            size += len(item.fragment if source is None else item[1][3])
            is_large = bool(self.newest) and size > PAGE_BYTES
            if is_large or (limit is not None and order <= limit):
                break
            if source is not None:
                offset, view = order[1], source.view
                if offset < view.base or (view.done and view.is_done(offset)):
                    self.done.append((len(self.newest), view.log, offset))
            self.newest.append(_page_entry(item, source))
        # The newest of what the page does not show.
        newest = None
        for order, item, source in self._candidates[len(self.newest) :][:1]:
            newest, self.following = order, _page_entry(item, source).entry.position
        if own_order and (newest is None or own_order > newest):
            newest, self.following = own_order, own_following
        rest = max((it for it in unknown if it[2] >= 0), default=None)
        if rest is not None and (newest is None or rest > newest):
            self.following = Position(0, *rest)


def _page_entry(item: Any, source: _Source | None) -> PageEntry:
    if source is None:
        page_entry: PageEntry = item
        return page_entry
    return PageEntry(source.shared.audience.head.epoch, item, 0)

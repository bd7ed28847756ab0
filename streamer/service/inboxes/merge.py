"""
One inbox out of several logs: pages, catching up, and counts.

Decides how a player's own log and those of its audiences become one list, ordered by
id, and how far into each a caller is then. Knows the store's pages and the player's
views. Knows nothing of who asks, nor of surfaces.

An audience's message is stored once, so a page is made by reading the same stretch of
each log and taking the newest. Where a log gave less than its share, because entries
are large or over, what is older than its last one is left for the next page: nothing is
shown before what is newer than it.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple, TypeGuard

from ...core.streams.cursor import NO_AUDIENCES, Cursor, audience_key
from ...core.streams.subscription import ReadFrom, Start
from ...core.streams.views import View
from ...model import ZERO, Entry, Gap, Log, Position, everyone_log
from ...store.logs.inbox import Inbox, Page, PageEntry, ReadAfter
from ...store.logs.page_reads import AudiencePage, PageReads
from .audiences import PlayerAudiences, later_position

__all__ = ["EntriesAfter", "MergedInbox", "MergedPage"]

_VERSION_SEPARATOR: Final = "_"
WALK_PAGE_ENTRIES: Final = 100


class MergedPage(NamedTuple):
    """
    Entries newest first. `version` changes with anything that a page could show.

    `entries` is None when the caller's version is still the one; the rest means nothing
    then. `cursor` is the place behind everything there is. `following` is where an
    older page begins, that place included; None is the end.
    """

    version: str
    cursor: Cursor
    unread: int
    entries: list[PageEntry] | None
    following: Position | None


class EntriesAfter(NamedTuple):
    """What follows a place, oldest first, where the caller is then, or why not."""

    entries: list[Entry]
    cursor: Cursor
    gap: Gap | None
    more: bool


class _Bounds(NamedTuple):
    newest: Position | None
    newest_included: bool
    oldest: Cursor | None

    def oldest_in(self, audience: Log | None) -> Position | None:
        if self.oldest is None:
            return None
        if audience is None:
            return self.oldest.own
        named = self.oldest.audiences.get(audience_key(audience))
        return named or self.oldest.own

    def reaches(
        self, position: Position | None, audience: Log | None
    ) -> TypeGuard[Position]:
        """Whether there is a place, and it is not older than what is asked for."""
        oldest = self.oldest_in(audience)
        return position is not None and (
            oldest is None or position.order > oldest.order
        )

    def has(self, entry: Entry, audience: Log | None) -> bool:
        """Whether an entry is between the bounds, by id."""
        order = entry.order
        if self.newest is not None:
            newest = self.newest.order
            if order > newest or (order == newest and not self.newest_included):
                return False
        oldest = self.oldest_in(audience)
        return oldest is None or order > oldest.order


class _Candidate(NamedTuple):
    page_entry: PageEntry
    view: View | None


_AudienceRead = tuple[View, AudiencePage]


class _MergedRead(NamedTuple):
    """What was read for a page; without entries where the caller has it."""

    own: Page
    audiences: list[_AudienceRead]
    """The audiences that have ever said something."""
    cursor: Cursor
    """The place behind all there was, in every log: also in those that were silent."""
    audiences_version: str
    entries: list[PageEntry] | None
    following: Position | None


class MergedInbox:
    """
    Players' inboxes with what their audiences were sent. Raises StoreUnavailable.

    Args:
        inbox: The logs.
        overviews: What reads them together.
        audiences: Who belongs to what.

    """

    def __init__(
        self, inbox: Inbox, page_reads: PageReads, audiences: PlayerAudiences
    ) -> None:
        self._inbox = inbox
        self._page_reads = page_reads
        self._audiences = audiences

    async def page(
        self,
        log: Log,
        *,
        newest: Position | None = None,
        newest_included: bool = True,
        oldest: Cursor | None = None,
        count: int,
        version: str = "",
    ) -> MergedPage:
        """
        Read up to `count` entries, newest first, between two places.

        Args:
            log: The player's.
            newest: Place to begin at; None is the newest entry.
            newest_included: Whether the entry at `newest` belongs to the page.
            oldest: Where the caller is: what is behind that is left out, in each log.
            count: Entries at most; fewer where they are large, or where the player has
                deleted some, but one at least.
            version: What the caller has; entries are left out if it is current.

        """
        bounds = _Bounds(newest, newest_included, oldest)
        first = None
        while True:
            read = await self._read(log, bounds, count, version)
            if read.entries is None:
                return _merged_page(read, read)
            # What has come since the first one is not behind the caller.
            first = first or read
            if read.entries or read.following is None:
                return _merged_page(first, read)
            # All that came is the player's no more; what is older may be.
            bounds = bounds._replace(newest=read.following, newest_included=True)
            version = ""

    async def entries_after(
        self, log: Log, start: Cursor | Start, *, count: int
    ) -> EntriesAfter:
        """
        Read up to `count` entries that follow a place, oldest first.

        Where there are any, at least one is given. With a `gap` there are none, and the
        cursor is not to be gone on from.
        """
        views = _unmuted(await self._audiences.views_of(log))
        if isinstance(start, Cursor):
            start = await self._audiences.resolve_cursor(log, views, start)
        reads = [ReadAfter(log, _own_read_from(start), count)]
        reads += [
            ReadAfter(view.log, await self._read_from(view, start), count)
            for view in views
        ]
        while True:
            after = await self._after(views, reads, count)
            if after.entries or after.gap or not after.more:
                return after
            # All that came is over: what follows may not be.
            positions = [after.cursor.own]
            for view in views:
                mark = audience_key(view.log)
                positions.append(after.cursor.audiences.get(mark, ZERO))
            reads = [
                read._replace(read_from=position)
                for read, position in zip(reads, positions, strict=True)
            ]

    async def walk(self, log: Log) -> AsyncIterator[PageEntry]:
        """Yield everything in an inbox, newest first, in portions of their moments."""
        newest = None
        while True:
            page = await self.page(log, newest=newest, count=WALK_PAGE_ENTRIES)
            for entry in page.entries or ():
                yield entry
            if page.following is None:
                return
            newest = page.following

    async def get(self, log: Log, position: Position) -> PageEntry | None:
        """Return the entry at a place by its id, of whatever log; or None."""
        oldest = Cursor(position._replace(tag=position.tag - 1))
        read = await self._read(log, _Bounds(position, True, oldest), 1, "")
        return read.entries[0] if read.entries else None

    async def _read(
        self, log: Log, bounds: _Bounds, count: int, version: str
    ) -> _MergedRead:
        # An entry on the newest place may be of any log; it is one more to look at.
        read_count = count + 1
        own_version, _, audiences_version = version.partition(_VERSION_SEPARATOR)
        own, stored_views, everyone = await self._page_reads.read(
            log,
            newest=bounds.newest,
            oldest=bounds.oldest_in(None),
            count=read_count,
            version=own_version,
        )
        views = _unmuted(await self._audiences.with_everyone(log, stored_views))
        pages = await self._audience_pages(log, views, everyone, bounds, read_count)
        audiences = [
            (view.at(read.audience), read)
            for view, read in zip(views, pages, strict=True)
            if not read.page.head.is_zero
        ]
        version_now = _audiences_version(audiences)
        if own.entries is None and version_now == audiences_version:
            cursor = _cursor(own, views, pages)
            return _MergedRead(own, audiences, cursor, version_now, None, None)
        if own.entries is None:
            own = await self._inbox.page(
                log,
                newest=bounds.newest,
                oldest=bounds.oldest_in(None),
                count=read_count,
            )
        if audiences:
            candidates, following = _newest_of_all(own, audiences, bounds, count)
            entries = await self._with_marks(log, audiences, candidates)
        else:
            entries, following = _newest_of_own(own, bounds, count)
        cursor = _cursor(own, views, pages)
        return _MergedRead(own, audiences, cursor, version_now, entries, following)

    async def _audience_pages(
        self,
        log: Log,
        views: Sequence[View],
        everyone: AudiencePage,
        bounds: _Bounds,
        count: int,
    ) -> list[AudiencePage]:
        """Return the audience's part of a page for each view."""
        first = everyone_log(log.app)
        same_bounds = bounds.oldest_in(first) == bounds.oldest_in(None)
        missing = [
            (view.log, bounds.oldest_in(view.log))
            for view in views
            if view.log != first or not same_bounds
        ]
        by_log = {first: everyone}
        if missing:
            pages = await self._page_reads.audience_pages(
                missing, newest=bounds.newest, count=count
            )
            by_log |= {
                audience: page
                for (audience, _), page in zip(missing, pages, strict=True)
            }
        return [by_log[view.log] for view in views]

    async def _with_marks(
        self,
        log: Log,
        audiences: Sequence[_AudienceRead],
        candidates: list[_Candidate],
    ) -> list[PageEntry]:
        """Say of audiences' entries when they were marked."""
        done_by_log = {
            view.log: [
                c.page_entry.entry.offset
                for c in candidates
                if c.view is not None
                and c.view.log == view.log
                and view.is_done(c.page_entry.entry.offset)
            ]
            for view, _ in audiences
        }
        done = [(audience, o) for audience, o in done_by_log.items() if o]
        times: dict[tuple[Log, int], int] = {}
        if done:
            times_by_log = await self._audiences.views.read_at_ms(log, done)
            for (audience, offsets), at_ms in zip(done, times_by_log, strict=True):
                times |= {
                    (audience, o): ms for o, ms in zip(offsets, at_ms, strict=True)
                }
        return [
            candidate.page_entry
            if candidate.view is None
            else candidate.page_entry.with_mark(
                times.get((candidate.view.log, candidate.page_entry.entry.offset), 0)
            )
            for candidate in candidates
        ]

    async def _read_from(self, view: View, start: Cursor | Start) -> ReadFrom:
        if isinstance(start, Start):
            return start
        named = start.audiences.get(audience_key(view.log))
        if named is not None:
            return named
        before = await self._audiences.position_before(view.log, start.own.at_ms)
        return later_position(view.joined, before)

    async def _after(
        self, views: Sequence[View], reads: Sequence[ReadAfter], count: int
    ) -> EntriesAfter:
        replies = await self._inbox.read_many(reads)
        logs: list[View | None] = [None, *views]
        visible: list[tuple[Entry, int]] = []
        starts, ends = [], []
        for i, (view, reply) in enumerate(zip(logs, replies, strict=True)):
            if isinstance(reply, Exception):
                raise reply
            history = reply.history
            if history.gap is not None:
                return EntriesAfter([], Cursor(history.head), history.gap, more=False)
            starts.append(history.start)
            if history.entries and history.entries[-1].offset < history.head.offset:
                ends.append(history.entries[-1].order)
            visible += [
                (entry, i) for entry in history.entries if _is_visible(entry, view)
            ]
        visible.sort(key=lambda pair: pair[0].order)
        # Nothing is known of a log behind the place where its portion ended.
        end = min(ends, default=None)
        certain = [pair for pair in visible if end is None or pair[0].order <= end]
        returned = certain[:count]
        remaining = visible[len(returned) :]
        positions = []
        for i, reply in enumerate(replies):
            assert not isinstance(reply, Exception)
            first_remaining = next((e for e, log_i in remaining if log_i == i), None)
            position = starts[i]
            for entry in reply.history.entries:
                if entry is first_remaining:
                    break
                position = entry.position
            positions.append(position)
        by_mark = {
            audience_key(view.log): position
            for view, position in zip(views, positions[1:], strict=True)
        }
        cursor = Cursor(positions[0], by_mark or NO_AUDIENCES)
        more = bool(ends or remaining)
        return EntriesAfter([entry for entry, _ in returned], cursor, None, more)


def _unmuted(views: Iterable[View]) -> list[View]:
    return [view for view in views if not view.muted]


def _is_visible(entry: Entry, view: View | None) -> bool:
    return entry.is_shown and (view is None or view.shows(entry))


def _own_read_from(start: Cursor | Start) -> ReadFrom:
    return start.own if isinstance(start, Cursor) else start


def _audiences_version(audiences: Sequence[_AudienceRead]) -> str:
    """Return what stands for the audiences in a version, "" while they are silent."""
    versions = [f"{view.log.name}{read.page.version}" for view, read in audiences]
    return f"{zlib.crc32(' '.join(versions).encode()):x}" if versions else ""


def _newest_of_own(
    own: Page, bounds: _Bounds, count: int
) -> tuple[list[PageEntry], Position | None]:
    """Return what `_newest_of_all` does where no audience has said anything."""
    entries = own.entries or []
    if bounds.newest is not None or bounds.oldest is not None:
        entries = [entry for entry in entries if bounds.has(entry.entry, None)]
    if len(entries) > count:
        return entries[:count], entries[count].entry.position
    following = own.following
    return entries, following if bounds.reaches(following, None) else None


def _cursor(own: Page, views: Sequence[View], pages: Sequence[AudiencePage]) -> Cursor:
    """Return the place behind what was read of each log."""
    heads = {
        audience_key(view.log): read.page.head
        for view, read in zip(views, pages, strict=True)
    }
    return Cursor(own.head, heads or NO_AUDIENCES)


def _newest_of_all(
    own: Page, audiences: Sequence[_AudienceRead], bounds: _Bounds, count: int
) -> tuple[list[_Candidate], Position | None]:
    """Return the newest entries of all logs, and where the next page begins."""
    candidates = [
        _Candidate(entry, None)
        for entry in own.entries or ()
        if bounds.has(entry.entry, None)
    ]
    ends = [end for end in (own.following,) if bounds.reaches(end, None)]
    for view, read in audiences:
        end = read.page.following
        if bounds.reaches(end, view.log) and view.reaches(end):
            ends.append(end)
        candidates += [
            _Candidate(entry, view)
            for entry in read.page.entries or ()
            if bounds.has(entry.entry, view.log) and view.shows(entry.entry)
        ]
    candidates.sort(
        key=lambda candidate: candidate.page_entry.entry.order, reverse=True
    )
    # Nothing is known of a log behind the place where its page ended.
    end = max(ends, key=lambda position: position.order, default=None)
    newest = [
        candidate
        for candidate in candidates
        if end is None or candidate.page_entry.entry.order > end.order
    ][:count]
    remaining = candidates[len(newest) :]
    starts = [remaining[0].page_entry.entry.position] if remaining else []
    following = max([*starts, *ends], key=lambda position: position.order, default=None)
    return newest, following


def _merged_page(first: _MergedRead, read: _MergedRead) -> MergedPage:
    """Return the page that was read, of an inbox as it was when the first one was."""
    unread = sum(view.unread(read.audience) for view, read in first.audiences)
    return MergedPage(
        f"{first.own.version}{_VERSION_SEPARATOR}{first.audiences_version}",
        first.cursor,
        first.own.unread + unread,
        read.entries,
        read.following,
    )

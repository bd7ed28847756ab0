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

from ...core.streams.cursor import NO_AUDIENCES, Cursor, audience_mark
from ...core.streams.subscription import ReadFrom, Start
from ...core.streams.views import View
from ...model import ZERO, Entry, Gap, Log, Position, everyone_log
from ...store.logs.inbox import Inbox, Page, PageEntry, ReadAfter
from ...store.logs.page_reads import AudiencePage, PageReads
from .audiences import PlayerAudiences, later

__all__ = ["EntriesAfter", "MergedInbox", "MergedPage"]

_VERSION_PARTS: Final = "_"
_PORTION: Final = 100


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
        named = self.oldest.audiences.get(audience_mark(audience))
        return named or self.oldest.own

    def reaches(
        self, place: Position | None, audience: Log | None
    ) -> TypeGuard[Position]:
        """Whether there is a place, and it is not older than what is asked for."""
        oldest = self.oldest_in(audience)
        return place is not None and (oldest is None or place.order > oldest.order)

    def has(self, entry: Entry, audience: Log | None) -> bool:
        """Whether an entry is between the bounds, by id."""
        place = entry.order
        if self.newest is not None:
            newest = self.newest.order
            if place > newest or (place == newest and not self.newest_included):
                return False
        oldest = self.oldest_in(audience)
        return oldest is None or place > oldest.order


class _Candidate(NamedTuple):
    found: PageEntry
    view: View | None


_Heard = tuple[View, AudiencePage]


class _Reading(NamedTuple):
    """What was read for a page; without entries where the caller has it."""

    own: Page
    heard: list[_Heard]
    """The audiences that have ever said something."""
    cursor: Cursor
    """The place behind all there was, in every log: also in those that were silent."""
    rest: str
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
                return _merged(read, read)
            # What has come since the first one is not behind the caller.
            first = first or read
            if read.entries or read.following is None:
                return _merged(first, read)
            # All that came is the player's no more; what is older may be.
            bounds = bounds._replace(newest=read.following, newest_included=True)
            version = ""

    async def after(
        self, log: Log, place: Cursor | Start, *, count: int
    ) -> EntriesAfter:
        """
        Read up to `count` entries that follow a place, oldest first.

        Where there are any, at least one is given. With a `gap` there are none, and the
        cursor is not to be gone on from.
        """
        views = _shown(await self._audiences.of(log))
        if isinstance(place, Cursor):
            place = await self._audiences.located(log, views, place)
        reads = [ReadAfter(log, _own(place), count)]
        reads += [
            ReadAfter(view.log, await self._place(view, place), count) for view in views
        ]
        while True:
            after = await self._after(views, reads, count)
            if after.entries or after.gap or not after.more:
                return after
            # All that came is over: what follows may not be.
            places = [after.cursor.own]
            for view in views:
                mark = audience_mark(view.log)
                places.append(after.cursor.audiences.get(mark, ZERO))
            reads = [
                read._replace(read_from=place)
                for read, place in zip(reads, places, strict=True)
            ]

    async def walk(self, log: Log) -> AsyncIterator[PageEntry]:
        """Yield everything in an inbox, newest first, in portions of their moments."""
        newest = None
        while True:
            page = await self.page(log, newest=newest, count=_PORTION)
            for found in page.entries or ():
                yield found
            if page.following is None:
                return
            newest = page.following

    async def one(self, log: Log, place: Position) -> PageEntry | None:
        """Return the entry at a place by its id, of whatever log; or None."""
        oldest = Cursor(place._replace(tag=place.tag - 1))
        read = await self._read(log, _Bounds(place, True, oldest), 1, "")
        return read.entries[0] if read.entries else None

    async def _read(
        self, log: Log, bounds: _Bounds, count: int, version: str
    ) -> _Reading:
        # An entry on the newest place may be of any log; it is one more to look at.
        asked = count + 1
        known, _, known_rest = version.partition(_VERSION_PARTS)
        own, found, everyone = await self._page_reads.read(
            log,
            newest=bounds.newest,
            oldest=bounds.oldest_in(None),
            count=asked,
            version=known,
        )
        views = _shown(await self._audiences.settle(log, found))
        parts = await self._parts(log, views, everyone, bounds, asked)
        heard = [
            (view.at(part.audience), part)
            for view, part in zip(views, parts, strict=True)
            if not part.page.head.is_zero
        ]
        rest = _rest(heard)
        if own.entries is None and rest == known_rest:
            return _Reading(own, heard, _cursor(own, views, parts), rest, None, None)
        if own.entries is None:
            own = await self._inbox.page(
                log, newest=bounds.newest, oldest=bounds.oldest_in(None), count=asked
            )
        if heard:
            candidates, following = _newest(own, heard, bounds, count)
            entries = await self._with_marks(log, heard, candidates)
        else:
            entries, following = _own_newest(own, bounds, count)
        cursor = _cursor(own, views, parts)
        return _Reading(own, heard, cursor, rest, entries, following)

    async def _parts(
        self,
        log: Log,
        views: Sequence[View],
        everyone: AudiencePage,
        bounds: _Bounds,
        count: int,
    ) -> list[AudiencePage]:
        """Return the audience's part of a page for each view."""
        asked = [(v.log, bounds.oldest_in(v.log)) for v in views]
        first = everyone_log(log.app)
        same = bounds.oldest_in(first) == bounds.oldest_in(None)
        missing = [one for one in asked if one[0] != first or not same]
        found = {first: everyone}
        if missing:
            parts = await self._page_reads.audience_pages(
                missing, newest=bounds.newest, count=count
            )
            found |= {
                audience: part
                for (audience, _), part in zip(missing, parts, strict=True)
            }
        return [found[view.log] for view in views]

    async def _with_marks(
        self, log: Log, heard: Sequence[_Heard], entries: list[_Candidate]
    ) -> list[PageEntry]:
        """Say of audiences' entries when they were marked."""
        by_view = {
            view.log: [
                c.found.entry.offset
                for c in entries
                if c.view is not None
                and c.view.log == view.log
                and view.is_done(c.found.entry.offset)
            ]
            for view, _ in heard
        }
        asked = [
            (audience, offsets) for audience, offsets in by_view.items() if offsets
        ]
        times: dict[tuple[Log, int], int] = {}
        if asked:
            found = await self._audiences.views.read_at_ms(log, asked)
            for (audience, offsets), at_ms in zip(asked, found, strict=True):
                times |= {
                    (audience, o): ms for o, ms in zip(offsets, at_ms, strict=True)
                }
        return [
            candidate.found
            if candidate.view is None
            else candidate.found.marked(
                times.get((candidate.view.log, candidate.found.entry.offset), 0)
            )
            for candidate in entries
        ]

    async def _place(self, view: View, place: Cursor | Start) -> ReadFrom:
        if isinstance(place, Start):
            return place
        named = place.audiences.get(audience_mark(view.log))
        if named is not None:
            return named
        before = await self._audiences.place_before(view.log, place.own.at_ms)
        return later(view.joined, before)

    async def _after(
        self, views: Sequence[View], reads: Sequence[ReadAfter], count: int
    ) -> EntriesAfter:
        replies = await self._inbox.read_many(reads)
        logs: list[View | None] = [None, *views]
        found: list[tuple[Entry, int]] = []
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
            found += [(entry, i) for entry in history.entries if _is_shown(entry, view)]
        found.sort(key=lambda pair: pair[0].order)
        # Nothing is known of a log behind the place where its portion ended.
        end = min(ends, default=None)
        known = [pair for pair in found if end is None or pair[0].order <= end]
        given = known[:count]
        left = found[len(given) :]
        places = []
        for i, reply in enumerate(replies):
            assert not isinstance(reply, Exception)
            first_left = next((entry for entry, of in left if of == i), None)
            place = starts[i]
            for entry in reply.history.entries:
                if entry is first_left:
                    break
                place = entry.position
            places.append(place)
        marks = {
            audience_mark(view.log): place
            for view, place in zip(views, places[1:], strict=True)
        }
        cursor = Cursor(places[0], marks or NO_AUDIENCES)
        return EntriesAfter([e for e, _ in given], cursor, None, bool(ends or left))


def _shown(views: Iterable[View]) -> list[View]:
    return [view for view in views if not view.muted]


def _is_shown(entry: Entry, view: View | None) -> bool:
    return entry.is_shown and (view is None or view.shows(entry))


def _own(place: Cursor | Start) -> ReadFrom:
    return place.own if isinstance(place, Cursor) else place


def _rest(heard: Sequence[_Heard]) -> str:
    """Return what stands for the audiences in a version, "" while they are silent."""
    versions = [f"{view.log.name}{part.page.version}" for view, part in heard]
    return f"{zlib.crc32(' '.join(versions).encode()):x}" if versions else ""


def _own_newest(
    own: Page, bounds: _Bounds, count: int
) -> tuple[list[PageEntry], Position | None]:
    """Return what `_newest` does where no audience has said anything."""
    entries = own.entries or []
    if bounds.newest is not None or bounds.oldest is not None:
        entries = [found for found in entries if bounds.has(found.entry, None)]
    if len(entries) > count:
        return entries[:count], entries[count].entry.position
    following = own.following
    return entries, following if bounds.reaches(following, None) else None


def _cursor(own: Page, views: Sequence[View], parts: Sequence[AudiencePage]) -> Cursor:
    """Return the place behind what was read of each log."""
    places = {
        audience_mark(view.log): part.page.head
        for view, part in zip(views, parts, strict=True)
    }
    return Cursor(own.head, places or NO_AUDIENCES)


def _newest(
    own: Page, heard: Sequence[_Heard], bounds: _Bounds, count: int
) -> tuple[list[_Candidate], Position | None]:
    """Return the newest entries of all logs, and where the next page begins."""
    candidates = [
        _Candidate(found, None)
        for found in own.entries or ()
        if bounds.has(found.entry, None)
    ]
    ends = [place for place in (own.following,) if bounds.reaches(place, None)]
    for view, part in heard:
        end = part.page.following
        if bounds.reaches(end, view.log) and view.reaches(end):
            ends.append(end)
        candidates += [
            _Candidate(found, view)
            for found in part.page.entries or ()
            if bounds.has(found.entry, view.log) and view.shows(found.entry)
        ]
    candidates.sort(key=lambda candidate: candidate.found.entry.order, reverse=True)
    # Nothing is known of a log behind the place where its page ended.
    end = max(ends, key=lambda position: position.order, default=None)
    taken = [
        candidate
        for candidate in candidates
        if end is None or candidate.found.entry.order > end.order
    ][:count]
    left = candidates[len(taken) :]
    places = [left[0].found.entry.position] if left else []
    following = max([*places, *ends], key=lambda position: position.order, default=None)
    return taken, following


def _merged(first: _Reading, read: _Reading) -> MergedPage:
    """Return the page that was read, of an inbox as it was when the first one was."""
    unread = sum(view.unread(part.audience) for view, part in first.heard)
    return MergedPage(
        f"{first.own.version}{_VERSION_PARTS}{first.rest}",
        first.cursor,
        first.own.unread + unread,
        read.entries,
        read.following,
    )

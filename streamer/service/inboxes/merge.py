"""
Several logs merged into one inbox: pages, catch-up reads, and counts.

Decides how a player's own log and those of its audiences become one list ordered by id,
and the cursor after each part of it. Knows the store's pages and the player's views.
Knows nothing of callers or surfaces.

An audience's message is stored once, so a page is built by reading a part of each log
and taking the newest entries (`page_merge`). Only logs whose head can be on the page
are read, a few entries at a time. An audience's log that is damaged is left out of
pages, which name it; all else is shown and counted.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.streams.cursor import NO_AUDIENCES, Cursor, audience_key
from ...core.streams.subscription import History, ReadFrom, Start
from ...core.streams.views import View
from ...model import ZERO, Entry, Gap, Log, Position, everyone_log
from ...store.logs.inbox import Inbox, Page, PageEntry, Read, ReadAfter
from ...store.logs.page_reads import PageReads, PlayerPage
from ...store.logs.shared_logs import SharedLog
from .audiences import PlayerAudiences, later_position
from .page_merge import Bounds, PageMerge, own_alone

__all__ = ["EntriesAfter", "MergedInbox", "MergedPage", "RecoveredCursor"]

_VERSION_SEPARATOR: Final = "_"
WALK_PAGE_ENTRIES: Final = 100

ENDED_MAX: Final = 1_000
"""Entries of one log in a read that follows reads whose entries have all ended."""

MANY_LOGS: Final = 4
"""From so many logs on, only the beginning of each is read at first."""

BEGINNING_MIN: Final = 2
"""Entries of one log that are read at first, beside its share of the page."""


class MergedPage(NamedTuple):
    """
    A page of entries, newest first.

    `version` changes with everything that a page could show. `entries` is None if the
    caller's version is current; the other members are not meaningful then. `cursor` is
    after all entries of all logs. `following` is the position at which the next, older
    page begins, inclusive; None at the end. `unreadable` are the audiences whose logs
    are damaged: nothing of them is shown or counted, and the cursor does not name them.
    """

    version: str
    cursor: Cursor
    unread: int
    entries: list[PageEntry] | None
    following: Position | None
    unreadable: Sequence[Log] = ()


class _Portion(NamedTuple):
    """
    What was read of one log: the entries after `start`, without a hole.

    `key` is the log's in a cursor, "" for the player's own. `shown` are those of the
    entries that the player sees. `is_whole` is whether they reach the head.
    """

    key: str
    start: Position
    entries: list[Entry]
    shown: list[Entry]
    is_whole: bool

    def position_after(self, order: tuple[int, int, int]) -> Position:
        """Return the position before the first shown entry after `order`."""
        position = self.start
        following = next((entry for entry in self.shown if entry.order > order), None)
        for entry in self.entries:
            if entry is following:
                break
            position = entry.position
        return position


class EntriesAfter(NamedTuple):
    """
    Entries after a cursor, oldest first, and the cursor after them; or a gap.

    `more` is whether entries may follow, shown or not. `gaps` are the numbers of the
    logs with a gap; 0 is the player's own.
    """

    entries: list[Entry]
    cursor: Cursor
    gap: Gap | None
    more: bool
    portions: Sequence[_Portion] = ()
    gaps: Sequence[int] = ()

    def cursor_after(self, entry: Entry) -> Cursor:
        """
        Return the cursor after one of `entries`, and after those before it.

        It is beyond no entry that the player sees later, in any log, and so a walk
        that goes on there shows each entry once, whatever has ended meanwhile.
        """
        return _cursor_after(self.portions, entry.order)


class RecoveredCursor(NamedTuple):
    """
    A cursor that is valid in every log, and why the caller's was not.

    `gap` is None if no entry after the caller's cursor is missing.
    """

    cursor: Cursor
    gap: Gap | None


class _MergedRead(NamedTuple):
    """The result of one read for a page; without entries if the version is current."""

    own: Page
    unread: int
    cursor: Cursor
    """After all entries of every log, including logs that were empty."""
    audiences_version: str
    entries: list[PageEntry] | None
    following: Position | None
    unreadable: Sequence[Log]


class MergedInbox:
    """
    Players' inboxes merged with the logs of their audiences.

    All methods raise StoreUnavailable.

    Args:
        inbox: The logs.
        page_reads: Reads pages of several logs together.
        audiences: The audiences of players.

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
        only_unread: bool = False,
    ) -> MergedPage:
        """
        Read up to `count` entries, newest first, between two bounds.

        Args:
            log: The player's own log.
            newest: The position to begin at; None is the newest entry.
            newest_included: Whether the entry at `newest` belongs to the page.
            oldest: The caller's cursor: only entries after it, in each log.
            count: The maximum number of entries. There are fewer if they are large or
                the player has deleted some, but at least one if there is any.
            version: The caller's version; if it is current, `entries` is None.
            only_unread: Whether the caller shows unread entries alone. Logs without
                any are left out. Entries of the others that are read are not.

        """
        bounds = Bounds(newest, newest_included, oldest)
        first = None
        while True:
            read = await self._read(log, bounds, count, version, only_unread)
            if read.entries is None:
                return _merged_page(read, read)
            # The cursor must not be after entries appended since the first read.
            first = first or read
            if read.entries or read.following is None:
                return _merged_page(first, read)
            # The player has none of the entries any more, but may have older ones.
            bounds = bounds._replace(newest=read.following, newest_included=True)
            version = ""

    async def entries_after(
        self,
        log: Log,
        start: Cursor | Start,
        *,
        count: int,
        up_to: Cursor | None = None,
        reset_audiences: Start | None = None,
    ) -> EntriesAfter:
        """
        Read up to `count` entries after `start`, oldest first.

        At least one, if there are any. With a `gap` there are none, and the cursor must
        not be used. With `up_to`, the cursor of a page, only entries that each log had
        then. With `reset_audiences`, audiences whose entries after `start` are not kept
        are read from there, while the player's own log has no gap.
        """
        all_views = await self._audiences.views_of(log)
        views = _unmuted(all_views)
        if isinstance(start, Cursor):
            start = await self._audiences.resolve_cursor(log, all_views, start)
        reads = [ReadAfter(log, _own_read_from(start), count)]
        reads += [
            ReadAfter(view.log, await self._read_from(view, start), count)
            for view in views
        ]
        while True:
            after = await self._after(views, reads, count, up_to)
            if after.gap and reset_audiences is not None and 0 not in after.gaps:
                for i in after.gaps:
                    reads[i] = reads[i]._replace(read_from=reset_audiences)
                continue
            if after.entries or after.gap or not after.more:
                return after
            # All entries of this read have ended; later ones may not have.
            positions = [after.cursor.own]
            for view in views:
                mark = audience_key(view.log)
                positions.append(after.cursor.audiences.get(mark, ZERO))
            # In longer portions, because all that a log keeps may have ended.
            reads = [
                read._replace(
                    read_from=position, limit=max(count, min(2 * read.limit, ENDED_MAX))
                )
                for read, position in zip(reads, positions, strict=True)
            ]

    async def recover(self, log: Log, cursor: Cursor) -> RecoveredCursor:
        """
        Return a cursor from which every log can be read, for any cursor or id.

        A log that no longer has the entries after its position is read from its oldest
        entry on, and so is one that was lost. One that does not know the position is
        read from the time of that position on. The other logs keep their positions.
        """
        all_views = await self._audiences.views_of(log)
        views = _unmuted(all_views)
        start = await self._audiences.resolve_cursor(log, all_views, cursor)
        logs = [log, *(view.log for view in views)]
        positions = [start.own]
        for view in views:
            position = await self._read_from(view, start)
            assert isinstance(position, Position)
            positions.append(position)
        gaps = [
            read and read.history.gap
            for read in await self._read_heads(log, zip(logs, positions, strict=True))
        ]
        outdated = [name for name, gap in zip(logs, gaps, strict=True) if gap]
        oldest = dict(
            zip(
                outdated,
                await self._read_heads(
                    log, ((name, Start.EARLIEST) for name in outdated)
                ),
                strict=True,
            )
        )
        for i, (name, gap) in enumerate(zip(logs, gaps, strict=True)):
            first = oldest.get(name)
            if first is None:
                continue
            at_us, positions[i] = positions[i].at_us, first.history.start
            if gap in (Gap.AHEAD, Gap.DIVERGED):
                before = await self._audiences.position_before(name, at_us)
                positions[i] = later_position(positions[i], before)
        by_key = {
            audience_key(view.log): position
            for view, position in zip(views, positions[1:], strict=True)
        }
        gap = next((gap for gap in gaps if gap), None)
        return RecoveredCursor(Cursor(positions[0], by_key or NO_AUDIENCES), gap)

    async def unread_between(
        self, log: Log, *, after: Cursor | None = None, before: Position | None = None
    ) -> int:
        """
        Count the unread notifications of an inbox between two points.

        Args:
            log: The player's own log.
            after: A cursor with a position for each log, as of `recover`; None for all.
            before: Only those that pages show below this position; None for all.

        """
        views = [View(log, ZERO), *_unmuted(await self._audiences.views_of(log))]
        states = await self._audiences.read_each(view.log for view in views)
        count = 0
        for view in views:
            state = states[view.log]
            if isinstance(state, ResponseError) and view.log != log:
                continue  # Damaged, and not counted on pages.
            if isinstance(state, Exception):
                raise state
            first, last = 0, state.head.offset
            if view.log == log:
                # The bits of a player's own log are those that are done.
                view = view._replace(base=state.base)
            if after is not None:
                position = after.own
                if view.log != log:
                    position = after.audiences.get(audience_key(view.log), ZERO)
                first = position.offset + 1
            if before is not None:
                below = await self._audiences.position_up_to(view.log, before)
                last = below.offset - (below.order == before.order)
            count += view.unread(state, first=first, last=last)
        return count

    async def _read_heads(
        self, own: Log, positions: Iterable[tuple[Log, ReadFrom]]
    ) -> list[Read | None]:
        """
        Return what reads after positions say, without entries.

        None for an audience's log that is damaged. That of `own` is an error.
        """
        asked = [ReadAfter(log, position, limit=0) for log, position in positions]
        reads: list[Read | None] = []
        for read_after, read in zip(
            asked, await self._inbox.read_many(asked), strict=True
        ):
            if isinstance(read, ResponseError) and read_after.log != own:
                self._note_damage(read_after.log, read)
                reads.append(None)
            elif isinstance(read, Exception):
                raise read
            else:
                reads.append(read)
        return reads

    async def walk(self, log: Log) -> AsyncIterator[PageEntry]:
        """
        Yield all entries of an inbox, newest first, read in pages at different times.
        """
        newest = None
        while True:
            page = await self.page(log, newest=newest, count=WALK_PAGE_ENTRIES)
            for entry in page.entries or ():
                yield entry
            if page.following is None:
                return
            newest = page.following

    async def get(self, log: Log, position: Position) -> PageEntry | None:
        """Return the entry of an id from any of the logs, or None."""
        oldest = Cursor(position._replace(tag=position.tag - 1))
        read = await self._read(log, Bounds(position, True, oldest), 1)
        return read.entries[0] if read.entries else None

    async def _read(
        self,
        log: Log,
        bounds: Bounds,
        count: int,
        version: str = "",
        only_unread: bool = False,
    ) -> _MergedRead:
        own_version, _, audiences_version = version.partition(_VERSION_SEPARATOR)
        options: dict[str, Any] = {
            "newest": bounds.newest,
            "oldest": bounds.oldest_in(None),
            # One more, because the entry at `newest` may be excluded, in any log.
            "count": count + (bounds.newest is not None),
            "only_unread": only_unread,
        }
        page = await self._page_reads.read(log, version=own_version, **options)
        own = page.own
        readable, unreadable = await self._readable(log, page)
        version_now, heads = _version_and_heads(readable, unreadable)
        cursor = Cursor(own.head, heads or NO_AUDIENCES)
        if own.entries is None:
            if version_now == audiences_version:
                return _MergedRead(own, 0, cursor, version_now, None, None, unreadable)
            own = (await self._page_reads.read(log, **options)).own
        if all(head.is_zero for head in heads.values()):
            entries, following = own_alone(own, bounds, count)
            return _MergedRead(
                own, own.unread, cursor, version_now, entries, following, unreadable
            )
        merge = PageMerge(self._page_reads, bounds, count, own, only_unread=only_unread)
        for view, state in readable:
            merge.add(view, state)
        await merge.read()
        if merge.unreadable:
            # The states do not tell, so this version is never current.
            version_now += "x"
            unreadable += merge.unreadable
        entries = await self._with_marks(log, merge)
        unread = own.unread + merge.unread
        return _MergedRead(
            own, unread, cursor, version_now, entries, merge.following, unreadable
        )

    async def _readable(
        self, log: Log, page: PlayerPage
    ) -> tuple[list[tuple[View, SharedLog]], list[Log]]:
        """
        Return the views of logs that can be read, with their states, and the logs that
        cannot.
        """
        everyone = everyone_log(log.app)
        stored = page.views.views
        if isinstance(page.shared[everyone], SharedLog):
            stored = await self._audiences.with_everyone(log, page.views)
        readable, unreadable = list[tuple[View, SharedLog]](), list[Log]()
        has_everyone = False
        for view in stored:
            has_everyone = has_everyone or view.log == everyone
            if view.muted:
                continue
            state = page.shared[view.log]
            if isinstance(state, SharedLog):
                readable.append((view, state))
            else:
                unreadable.append(view.log)
        if not has_everyone:
            unreadable.append(everyone)
        for damaged in unreadable:
            self._note_damage(damaged, page.shared[damaged])
        return readable, unreadable

    def _note_damage(self, audience: Log, problem: object) -> None:
        self._inbox.damage.note("inboxes", audience.name, problem)

    async def _with_marks(self, log: Log, merge: PageMerge) -> list[PageEntry]:
        """
        Return the entries; those of audiences with the time at which they were marked.
        """
        entries = merge.newest
        if not merge.done:
            return entries
        marked: dict[Log, list[int]] = {}
        for _, audience, offset in merge.done:
            marked.setdefault(audience, []).append(offset)
        times = await self._audiences.views.marks_of(log, [*marked.items()])
        for i, audience, offset in merge.done:
            # Those of audiences were made for this page.
            entries[i].read_at_ms = times[audience, offset]
        return entries

    async def _read_from(self, view: View, start: Cursor | Start) -> ReadFrom:
        if isinstance(start, Start):
            return start
        named = start.audiences.get(audience_key(view.log))
        if named is not None:
            return named
        try:
            before = await self._audiences.position_before(view.log, start.own.at_us)
        except ResponseError as error:
            # Damaged. After a repair some may be delivered twice.
            self._note_damage(view.log, error)
            return view.joined
        return later_position(view.joined, before)

    async def _after(
        self,
        views: Sequence[View],
        reads: Sequence[ReadAfter],
        count: int,
        up_to: Cursor | None,
    ) -> EntriesAfter:
        logs: list[View | None] = [None, *views]
        portions, gaps = list[_Portion](), {}
        histories = await self._histories(views, _beginnings(reads))
        for i, (view, history) in enumerate(zip(logs, histories, strict=True)):
            if history is None:
                assert view is not None
                portions.append(_unreadable(view, reads[i].read_from))
                continue
            if history.gap is not None:
                gaps[i] = history
            portions.append(_portion(view, history, up_to))
        if gaps:
            first = next(iter(gaps.values()))
            cursor = Cursor(first.head)
            return EntriesAfter([], cursor, first.gap, more=False, gaps=list(gaps))
        await self._read_on(views, reads, histories, portions, count, up_to)
        shown = sorted(
            (entry for portion in portions for entry in portion.shown),
            key=lambda entry: entry.order,
        )
        # Entries after the end of a log's portion are not known yet.
        ends = [p.entries[-1].order for p in portions if not p.is_whole]
        end = min(ends, default=None)
        certain = [entry for entry in shown if end is None or entry.order <= end]
        returned = certain[:count]
        last = returned[-1].order if returned else ZERO.order
        return EntriesAfter(
            returned,
            _cursor_after(portions, last),
            None,
            more=bool(ends) or len(returned) < len(shown),
            portions=portions,
        )

    async def _histories(
        self, views: Sequence[View], reads: Sequence[ReadAfter]
    ) -> list[History | None]:
        """Carry out reads of the own log and of audiences; None for a damaged one."""
        replies = await self._inbox.read_many(reads)
        histories = list[History | None]()
        for view, reply in zip([None, *views], replies, strict=True):
            if isinstance(reply, ResponseError) and view is not None:
                # Damaged: its position stays where it is, so that nothing is lost.
                self._note_damage(view.log, reply)
                histories.append(None)
            elif isinstance(reply, Exception):
                raise reply
            else:
                histories.append(reply.history)
        return histories

    async def _read_on(
        self,
        views: Sequence[View],
        reads: Sequence[ReadAfter],
        histories: Sequence[History | None],
        portions: list[_Portion],
        count: int,
        up_to: Cursor | None,
    ) -> None:
        """
        Make portions longer whose logs may have more of the first `count` entries.

        Changes `portions`. A log of which no more can be read keeps its portion.
        """
        orders = sorted(entry.order for portion in portions for entry in portion.shown)
        cutoff = orders[count - 1] if len(orders) >= count else None
        behind = [
            i
            for i, portion in enumerate(portions)
            if not portion.is_whole
            and len(portion.entries) < reads[i].limit
            and (cutoff is None or portion.entries[-1].order < cutoff)
        ]
        if not behind:
            return
        replies = await self._inbox.read_many(
            [
                reads[i]._replace(read_from=portions[i].entries[-1].position)
                for i in behind
            ]
        )
        logs: list[View | None] = [None, *views]
        for i, reply in zip(behind, replies, strict=True):
            if isinstance(reply, ResponseError):
                continue  # Damaged meanwhile. The next read finds it.
            if isinstance(reply, Exception):
                raise reply
            before, more = histories[i], reply.history
            assert before is not None
            if more.gap is None and more.head.epoch == before.head.epoch:
                history = before._replace(
                    head=more.head, entries=[*before.entries, *more.entries]
                )
                portions[i] = _portion(logs[i], history, up_to)


def _beginnings(reads: Sequence[ReadAfter]) -> list[ReadAfter]:
    """
    Return reads of the first entries of each of many logs.

    Most of what full reads would return is newer than the entries that are asked for.
    """
    if len(reads) < MANY_LOGS:
        return list(reads)
    return [
        read._replace(limit=min(read.limit, BEGINNING_MIN + read.limit // len(reads)))
        for read in reads
    ]


def _unreadable(view: View, read_from: ReadFrom) -> _Portion:
    """Return the portion of an audience's log that cannot be read."""
    start = read_from if isinstance(read_from, Position) else ZERO
    return _Portion(audience_key(view.log), start, [], [], True)


def _portion(
    view: View | None, history: History, up_to: Cursor | None = None
) -> _Portion:
    key = "" if view is None else audience_key(view.log)
    entries = history.entries
    end = history.head
    if up_to is not None:
        # A log that was created, or created again, since then had none of these.
        end = up_to.own if view is None else up_to.audiences.get(key, ZERO)
        is_same = end.epoch == history.head.epoch
        entries = [entry for entry in entries if is_same and entry.offset <= end.offset]
    return _Portion(
        key,
        history.start,
        entries,
        [entry for entry in entries if _is_visible(entry, view)],
        not entries
        or len(entries) < len(history.entries)
        or entries[-1].offset >= end.offset,
    )


def _cursor_after(portions: Sequence[_Portion], order: tuple[int, int, int]) -> Cursor:
    own, *audiences = portions
    positions = {portion.key: portion.position_after(order) for portion in audiences}
    return Cursor(own.position_after(order), positions or NO_AUDIENCES)


def _unmuted(views: Iterable[View]) -> list[View]:
    return [view for view in views if not view.muted]


def _is_visible(entry: Entry, view: View | None) -> bool:
    return entry.is_shown and (view is None or view.shows(entry))


def _own_read_from(start: Cursor | Start) -> ReadFrom:
    return start.own if isinstance(start, Cursor) else start


def _version_and_heads(
    readable: Iterable[tuple[View, SharedLog]], unreadable: Iterable[Log]
) -> tuple[str, dict[str, Position]]:
    """
    Return the parts of a version and of a cursor for audiences.

    The version is "" if none has ever had an entry.
    """
    versions = [f"{log.name}damaged" for log in unreadable]
    heads = {}
    for view, state in readable:
        head = state.audience.head
        heads[audience_key(view.log)] = head
        if not head.is_zero:
            # Where the player joined: after an erasure the player joins again.
            versions.append(f"{view.log.name}{state.version}.{view.joined.offset}")
    version = f"{zlib.crc32(' '.join(versions).encode()):x}" if versions else ""
    return version, heads


def _merged_page(first: _MergedRead, read: _MergedRead) -> MergedPage:
    """Return the page of `read` with the state of the inbox at the `first` read."""
    return MergedPage(
        f"{first.own.version}{_VERSION_SEPARATOR}{first.audiences_version}",
        first.cursor,
        first.unread,
        read.entries,
        read.following,
        read.unreadable,
    )

"""
A player's inbox: the log with its read marks.

Decides how appending, reading and marking are asked of the store, each one script and
so one atomic step. Knows the scripts in ``lua/`` and the shape of their replies. Knows
nothing of who may do what, nor of surfaces.

A clock may be given for tests. Without one the store's own counts, which is what makes
several nodes agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ..core.subscription import Gap, History, Place, Start
from ..model import (
    ZERO,
    Entry,
    Log,
    Position,
    encode_cursor,
    encode_id,
    new_epoch,
    new_tag,
)
from .keys import channel, inbox_keys, once_key
from .link import Link, Script, ScriptCall
from .replicated import Replicated

__all__ = [
    "Appended",
    "Inbox",
    "Marked",
    "Once",
    "Page",
    "PageEntry",
    "Read",
    "ReadAfter",
]

INLINE_MAX: Final = 16_384
"""Largest fragment announced whole, in bytes. A larger one is read from the log, so
that a few large notifications cannot fill a subscriber's 32 MB output buffer."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Fragments in one page. A page of the largest notifications is shorter than asked."""

ONCE_MS: Final = 24 * 3_600_000
MARK_IDS_ANNOUNCED_MAX: Final = 100
DAY_MS: Final = 86_400_000

_APPEND = Script("append", behind=("_inbox", "_append"))
_READ_AFTER = Script("read_after", behind=("_inbox",))
_PAGE = Script("page", behind=("_inbox", "_read_at"))
_MARK = Script("mark", behind=("_inbox",))


class Once(NamedTuple):
    """An idempotency key and the digest of the request it belongs to."""

    key: str
    digest: str


class Appended(NamedTuple):
    """Where a batch stands in the log; `replayed` when it was there before."""

    positions: list[Position]
    replayed: bool


class ReadAfter(NamedTuple):
    """
    One read of `read_after`.

    `behind_max` is how many entries may follow the place before the read gives a gap
    instead (0: any number). `bytes_max` ends the read early, a few entries after that
    many bytes (0: never).
    """

    log: Log
    place: Place
    limit: int
    behind_max: int = 0
    bytes_max: int = 0


class Read(NamedTuple):
    """What came of it, with the inbox's counters at the same moment."""

    history: History
    unread: int
    marks: int


class PageEntry(NamedTuple):
    """An entry and when it was marked as read, in ms; 0 when it was not."""

    entry: Entry
    read_at_ms: int


class Page(NamedTuple):
    """
    Entries newest first. `version` changes with anything that a page could show.

    `entries` is None when the caller's version is still the one. `following` is the
    place of the next older entry, where there is one in the range asked for.
    """

    version: str
    head: Position
    unread: int
    entries: list[PageEntry] | None
    following: Position | None = None


class Marked(NamedTuple):
    """The state after a mark: unread entries, entries newly marked, marks version."""

    unread: int
    changed: int
    marks: int


class Inbox:
    """
    All inboxes of the store.

    Args:
        link: The way to the store.
        confirmed: The way of appends, where replicas have to confirm them.
        retention_ms: Age at which an entry leaves.
        entries_max: Entries kept per player.
        clock_ms: Gives the time to use; 0 means the store's own.

    """

    def __init__(
        self,
        link: Link,
        *,
        confirmed: Replicated | None = None,
        retention_ms: int = 90 * DAY_MS,
        entries_max: int = 10_000,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._link = link
        self._appends = confirmed or link
        self._retention_ms = retention_ms
        self._entries_max = entries_max
        self._clock_ms = clock_ms

    async def append(
        self, log: Log, fragments: Sequence[bytes], *, once: Once | None = None
    ) -> Appended:
        """Append one batch; see `append_many`. Raises what that puts in its list."""
        (appended,) = await self.append_many([(log, fragments)], once=once)
        if isinstance(appended, Exception):
            raise appended
        return appended

    async def append_many(
        self,
        batches: Sequence[tuple[Log, Sequence[bytes]]],
        *,
        once: Once | None = None,
    ) -> list[Appended | Exception]:
        """
        Append a batch to each log and announce it. Atomic per log, in order.

        With `once`, a batch that was appended under the same key within 24 hours is
        not appended again; its first positions come back.

        Failures are items of the list: StoreAway (not appended), OutcomeUnknown (not
        known), ResponseError (``CONFLICT``: the key belongs to another digest).
        O(entries) per log.

        Raises:
            StoreAway: Nothing was appended anywhere.

        """
        calls = [self._append_call(log, batch, once) for log, batch in batches]
        replies = await self._appends.run_many(calls)
        return [
            reply if isinstance(reply, Exception) else _appended(reply)
            for reply in replies
        ]

    async def read_after(
        self, log: Log, place: Place, *, count: int, behind_max: int = 0
    ) -> Read:
        """Read entries after a place; see `read_many`. Raises StoreAway."""
        (read,) = await self.read_many([ReadAfter(log, place, count, behind_max)])
        if isinstance(read, Exception):
            raise read
        return read

    async def read_many(self, reads: Sequence[ReadAfter]) -> list[Read | Exception]:
        """
        Carry out reads in one packet. A failed one is an exception in the list.

        Each gives up to `limit` entries after its place, or the reason why there is a
        gap; see `core.subscription`. O(log n + limit).
        """
        calls = [
            ScriptCall(
                _READ_AFTER,
                inbox_keys(read.log),
                (
                    *self._times(),
                    *_place(read.place),
                    read.limit,
                    read.behind_max,
                    read.bytes_max,
                ),
            )
            for read in reads
        ]
        replies = await self._link.run_many(calls, write=False)
        return [
            reply if isinstance(reply, Exception) else _read(reply) for reply in replies
        ]

    async def page(
        self,
        log: Log,
        *,
        newest: Position | None = None,
        newest_included: bool = True,
        oldest: Position | None = None,
        oldest_included: bool = False,
        count: int,
        version: str = "",
    ) -> Page:
        """
        Read up to `count` entries, newest first, between two places.

        Args:
            log: Whose.
            newest: Place to begin at; None is the newest entry.
            newest_included: Whether the entry at `newest` belongs to the page.
            oldest: Place to end at; None is the oldest entry.
            oldest_included: Whether the entry at `oldest` belongs to the page.
            count: Entries at most; fewer where they are large, but one at least.
            version: What the caller has; entries are left out if it is current.

        Positions go by their place in time alone: the epoch is not compared, so a place
        that is gone still divides newer from older. O(log n + count).

        """
        reply = await self._link.run(
            _PAGE,
            inbox_keys(log),
            (
                *self._times(),
                _bound(newest, newest_included, "+"),
                _bound(oldest, oldest_included, "-"),
                count,
                version,
                PAGE_BYTES,
            ),
            write=False,
        )
        return _page(reply)

    async def mark_ids(self, log: Log, places: Sequence[Position]) -> Marked:
        """
        Mark the entries at `places` as read, all in one step.

        A place whose tag is not the entry's, or whose entry is gone, is ignored.
        O(places).
        """
        args = ["ids"]
        for place in places:
            args += [str(place.at_ms), str(place.offset), str(place.tag)]
        shown = b",".join(b'"%b"' % _id(p) for p in places[:MARK_IDS_ANNOUNCED_MAX])
        whole = len(places) <= MARK_IDS_ANNOUNCED_MAX
        # A reader that is not told which ids reads its page again.
        body = b'"ids":[%b]' % shown if whole else b'"ids":null'
        return await self._mark(log, body, args)

    async def mark_up_to(self, log: Log, position: Position) -> Marked:
        """Mark everything up to and including `position`, if the log knows it."""
        body = b'"up_to":"%b"' % encode_cursor(position).encode()
        return await self._mark(log, body, ["up_to", *map(str, position)])

    async def mark_all(self, log: Log) -> Marked:
        """Mark everything that is in the log at this moment."""
        return await self._mark(log, b'"all":true', ["all"])

    async def _mark(self, log: Log, body: bytes, args: list[str]) -> Marked:
        reply = await self._link.run(
            _MARK, inbox_keys(log), (*self._times(), channel(log), body, *args)
        )
        return Marked(*reply)

    def _append_call(
        self, log: Log, fragments: Sequence[bytes], once: Once | None
    ) -> ScriptCall:
        assert fragments
        keys: tuple[str, ...] = inbox_keys(log)
        args: list[str | bytes | int] = [
            *self._times(),
            self._entries_max,
            new_epoch(),
            channel(log),
            INLINE_MAX,
            once.digest if once else "",
            ONCE_MS,
        ]
        if once:
            keys = (*keys, once_key(log, once.key))
        for fragment in fragments:
            args += [new_tag(), fragment]
        return ScriptCall(_APPEND, keys, args)

    def _times(self) -> tuple[int, int]:
        return self._retention_ms, self._clock_ms()


def _id(place: Position) -> bytes:
    return encode_id(place.at_ms, place.offset, place.tag).encode()


def _place(place: Place) -> tuple[str | int, ...]:
    if isinstance(place, Start):
        return (place.value, *ZERO)
    return ("after", *place)


def _bound(place: Position | None, included: bool, default: str) -> str:
    if place is None:
        return default
    if place.is_zero:
        return "0-0"  # Nothing is there; and "(0-0" is no bound to the store.
    return f"{'' if included else '('}{place.at_ms}-{place.offset}"


def _appended(reply: list[Any]) -> Appended:
    replayed, epoch, at_ms, offset, tags = reply
    first = int(offset)
    return Appended(
        [
            Position(int(epoch), int(at_ms), first + i, int(tag))
            for i, tag in enumerate(tags)
        ],
        bool(replayed),
    )


def _position(fields: list[bytes]) -> Position:
    return Position(*map(int, fields))


def _entry(epoch: int, item: list[Any]) -> Entry:
    place, fields = item
    at_ms, _, offset = place.partition(b"-")
    device = fields[5].decode() if len(fields) > 5 else ""
    return Entry(epoch, int(at_ms), int(offset), int(fields[1]), fields[3], device)


def _read(reply: list[Any]) -> Read:
    gap, start, head, unread, marks, items = reply
    newest = _position(head)
    history = History(
        _position(start),
        newest,
        [_entry(newest.epoch, item) for item in items],
        Gap(gap.decode()) if gap else None,
    )
    return Read(history, unread, marks)


def _page(reply: list[Any]) -> Page:
    version, head, unread = reply[:3]
    newest = _position(head)
    entries = following = None
    if len(reply) > 3:
        entries = [
            PageEntry(_entry(newest.epoch, item), read_at_ms)
            for item, read_at_ms in zip(reply[3], reply[4], strict=True)
        ]
    if len(reply) > 5:
        following = _entry(newest.epoch, reply[5]).position
    return Page(version.decode(), newest, unread, entries, following)

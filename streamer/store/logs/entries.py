"""
Drafts of entries, and the replies of the scripts that work on logs.

Decides how arguments are encoded and replies parsed. Knows the items of a log and the
order of fields in a reply. Knows nothing of which script is called, nor when.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple

from ...compiled.entries import Row
from ...core.streams.subscription import History
from ...core.streams.views import Audience
from ...model import ZERO, Entry, Gap, Position

__all__ = [
    "PEEK_FIELDS",
    "AppendResult",
    "Draft",
    "MarkResult",
    "Once",
    "Page",
    "PageEntry",
    "Peek",
    "Read",
    "bound",
    "parse_append_result",
    "parse_audience",
    "parse_entry",
    "parse_page",
    "parse_page_beside",
    "parse_peek",
    "parse_position",
    "parse_read",
    "position_args",
    "stream_id",
]

PEEK_FIELDS: Final = ("epoch", "at_us", "head", "tag", "marks", "ended", "ends_at")
"""Fields of a log's state, see `store.keys`, in the order of `parse_peek`."""

_NOT_STORED: Final = b"-"


class Draft(NamedTuple):
    """
    An entry to be appended.

    `fragment` is what `model.encode_fragment` returns. It repeats the other fields, by
    which the scripts decide. A player that has muted the `type` does not get the entry.
    `expires_ms` is Unix time, 0 for never. An entry with a `collapse_key` replaces the
    previous entry with that key unless that has ended or left the log. With ``latest``
    streams deliver it only on the connected device that was used last, or on all
    devices if no stream names one.
    """

    fragment: bytes
    type: str = ""
    expires_ms: int = 0
    collapse_key: str = ""
    device: Literal["all", "latest"] = "all"


class Once(NamedTuple):
    """An idempotency key and the digest of the request that it belongs to."""

    key: str
    digest: str


class AppendResult(NamedTuple):
    """
    The positions of a batch. `replayed` if an earlier request has appended it.

    A position is None if the player has muted the type: that entry was not stored.
    """

    positions: list[Position | None]
    replayed: bool

    @property
    def stored_count(self) -> int:
        """Number of entries that were stored."""
        return len(self.positions) - self.positions.count(None)

    @property
    def stored(self) -> list[Position]:
        """Positions of the entries that were stored."""
        return [position for position in self.positions if position is not None]


class Read(NamedTuple):
    """
    Entries after a position, with the log's counters at the same moment.

    `unread_before` counts the unread entries up to the position. `ends_at_ms` is when
    the log's next entry expires, 0 for never.
    """

    history: History
    unread: int
    marks: int
    unread_before: int = 0
    ends_at_ms: int = 0


class Peek(NamedTuple):
    """
    The state of a log as stored.

    `ended` is the number of entries that have expired. `is_due` is whether the time of
    more has come; the next read records that. `ends_at_ms` is that time, 0 for never.
    """

    head: Position
    marks: int
    ended: int
    is_due: bool
    ends_at_ms: int = 0


class PageEntry:
    """
    An entry, and when it was marked as read in Unix ms; 0 if it is unread.

    Args:
        epoch: The log's epoch.
        item: The item of the log. It is parsed when `entry` is first used; encoding a
            page does not need that.
        read_at_ms: The read mark.

    """

    __slots__ = ("_entry", "_epoch", "_item", "read_at_ms")

    def __init__(self, epoch: int, item: list[Any] | None, read_at_ms: int) -> None:
        self._epoch = epoch
        self._item = item
        self._entry: Entry | None = None
        self.read_at_ms = read_at_ms

    @classmethod
    def of(cls, entry: Entry, read_at_ms: int) -> PageEntry:
        """Return a page entry of an entry that is parsed already."""
        page_entry = cls(entry.epoch, None, read_at_ms)
        page_entry._entry = entry
        return page_entry

    @property
    def entry(self) -> Entry:
        if self._entry is None:
            assert self._item is not None
            self._entry = parse_entry(self._epoch, self._item)
        return self._entry

    @property
    def order(self) -> tuple[int, int, int]:
        """See `Position.order`. Needs less parsing than `entry`."""
        if self._entry is not None or self._item is None:
            return self.entry.order
        stream_id, fields = self._item
        at_us, _, offset = stream_id.partition(b"-")
        return int(at_us), int(offset), int(fields[1])

    @property
    def fragment(self) -> bytes:
        if self._item is not None:
            fragment: bytes = self._item[1][3]
            return fragment
        return self.entry.fragment

    @property
    def row(self) -> Row:
        """The entry as `compiled.entries` encodes it."""
        if self._item is None:
            entry = self.entry
            stream_id = b"%d-%d" % (entry.at_us, entry.offset)
            return stream_id, b"%d" % entry.tag, entry.fragment, self.read_at_ms
        stream_id, fields = self._item
        return stream_id, fields[1], fields[3], self.read_at_ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageEntry) and (self.entry, self.read_at_ms) == (
            other.entry,
            other.read_at_ms,
        )

    __hash__ = None  # type: ignore[assignment]  # Equality may need parsing.

    def __repr__(self) -> str:
        return f"PageEntry({self.entry!r}, {self.read_at_ms})"


class Page(NamedTuple):
    """
    Entries, newest first. `version` changes with everything that a page can show.

    If the caller's version is current, `entries` is None and the rest is meaningless.
    `following` is the position at which the next page begins: that of an older entry in
    the requested range. None is the end. After a long run of ended entries it may be
    the position of one of them.
    """

    version: str
    head: Position
    unread: int
    entries: list[PageEntry] | None
    following: Position | None = None


class MarkResult(NamedTuple):
    """Unread entries after the change, changed entries, and version of the marks."""

    unread: int
    changed: int
    marks: int


def position_args(positions: Sequence[Position]) -> list[str]:
    """Return time, offset and tag of each position, as arguments of a script."""
    return [str(part) for position in positions for part in position.order]


def bound(position: Position | None, included: bool, default: str) -> str:
    """Return one bound of a range of a log, as arguments of XRANGE are written."""
    if position is None:
        return default
    if position.is_zero:
        return "0-0"  # No entry is there, and Redis refuses "(0-0".
    return f"{'' if included else '('}{stream_id(position)}"


def stream_id(position: Position) -> str:
    """Return the id that the store has for the entry at a position."""
    return f"{position.at_us}-{position.offset}"


def parse_position(fields: list[bytes]) -> Position:
    position = Position(*map(int, fields))
    # One object for all new players: readers keep it.
    return ZERO if position == ZERO else position


def parse_entry(epoch: int, item: list[Any]) -> Entry:
    """Return the entry of a log's item, whose fields `store.keys` describes."""
    stream_id, fields = item
    at_us, _, offset = stream_id.partition(b"-")
    entry = Entry(epoch, int(at_us), int(offset), int(fields[1]), fields[3])
    if len(fields) == 4:
        return entry
    optional = dict(zip(fields[4::2], fields[5::2], strict=True))
    return entry._replace(
        device=optional.get(b"d", b"").decode(),
        replaces=optional.get(b"r", b"").decode(),
        withdraws=optional.get(b"w", b"").decode(),
        ended=b"x" in optional,
    )


def parse_append_result(reply: bytes) -> AppendResult:
    replayed, epoch, at_us, offset, tags = reply.split(b" ")
    if tags.isdigit():  # Most batches are one entry.
        position = Position(int(epoch), int(at_us), int(offset), int(tags))
        return AppendResult([position], replayed == b"1")
    positions: list[Position | None] = []
    following = int(offset)
    for tag in tags.split(b","):
        if tag == _NOT_STORED:
            positions.append(None)
        else:
            positions.append(Position(int(epoch), int(at_us), following, int(tag)))
            following += 1
    return AppendResult(positions, replayed == b"1")


def parse_read(reply: list[Any]) -> Read:
    gap, start, head, unread, marks, items, before, ends_at = reply
    newest = parse_position(head)
    history = History(
        parse_position(start),
        newest,
        [parse_entry(newest.epoch, item) for item in items],
        Gap(gap.decode()) if gap else None,
    )
    return Read(history, unread, marks, before, int(ends_at))


def parse_audience(reply: list[Any]) -> Audience:
    head, floor, base, bits = reply[:4]
    return Audience(parse_position(head), int(floor), int(base), bits)


def parse_peek(fields: list[bytes | None], now_ms: int) -> Peek:
    *position, marks, ended, ends_at = [int(field or 0) for field in fields]
    is_due = 0 < ends_at <= now_ms
    return Peek(Position(*position), marks, ended, is_due, ends_at)


def parse_page(reply: list[Any]) -> Page:
    version, *rest = reply
    if not rest:
        return Page(version.decode(), ZERO, 0, None)
    head, unread, marks, items, *follower = rest
    newest = parse_position(head)
    following = None
    if follower:
        following = parse_entry(newest.epoch, follower[0]).position
    entries = _page_entries(newest.epoch, items, marks)
    return Page(version.decode(), newest, unread, entries, following)


def parse_page_beside(
    reply: list[Any],
    items: list[Any],
    *,
    count: int,
    bytes_max: int,
    is_bounded: bool = False,
) -> Page | None:
    """
    Return a page of a log from two replies: state with marks, and items.

    Args:
        reply: The state of the log and the marks of the page's entries.
        items: The page's items at a later moment, up to one more than `count`.
        count: Maximum number of entries.
        bytes_max: Maximum size of all fragments; one entry is returned regardless.
        is_bounded: Whether the page has a lower bound.

    Entries are never removed from the middle of a log, so items that begin at the entry
    that the script found are those of its moment. Returns None if they do not: an entry
    was appended, or has left the log, between the two replies. Also returns None if an
    entry was purged in between, and has no text.

    """
    version, head, unread, marks, first = reply
    newest = parse_position(head)
    first_id, first_offset, first_tag = first.split(b" ")
    floor = int(version.split(b".")[3])
    due = min(int(first_offset) - floor, count) + 1 if first_id != b"0" else 0
    if len(items) > due or (len(items) < due and not is_bounded):
        return None
    # Between two bounds there may be nothing.
    if due and (items or not is_bounded):
        if not items or items[0][0] != first_id or items[0][1][1] != first_tag:
            return None
        if not items[-1][0].endswith(b"-%d" % (int(first_offset) - len(items) + 1)):
            return None
    shown = min(len(items), count)
    sizes = [len(fields[3]) for _, fields in items]
    if 0 in sizes:
        return None
    if sum(sizes) > bytes_max:
        weights = accumulate(sizes)
        light = sum(1 for weight in weights if weight <= bytes_max)
        shown = min(shown, max(light, 1))
    following = None
    if shown < len(items):
        following = parse_entry(newest.epoch, items[shown]).position
    entries = _page_entries(newest.epoch, items[:shown], marks)
    return Page(version.decode(), newest, unread, entries, following)


def _page_entries(epoch: int, items: list[Any], marks: list[int]) -> list[PageEntry]:
    """Return the entries of items. No marks at all means that every one is unread."""
    if not marks:
        return [PageEntry(epoch, item, 0) for item in items]
    # There are more marks than items if large entries have shortened the page.
    return [
        PageEntry(epoch, item, read_at_ms)
        for item, read_at_ms in zip(items, marks, strict=False)
    ]

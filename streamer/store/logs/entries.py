"""
What is appended to a log, and what the scripts say of its entries.

Decides how their arguments and replies are written. Knows the items of a log and the
order of fields in a reply. Knows nothing of which script is asked, nor when.
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
    "parse_first_page",
    "parse_page",
    "parse_peek",
    "parse_position",
    "parse_read",
    "position_args",
]

PEEK_FIELDS: Final = ("epoch", "ms", "head", "tag", "marks", "ended", "ends_at")
"""Fields of a log's state, as ``lua/_inbox`` has them, for `parse_peek`."""

_NOT_STORED: Final = b"-"


class Draft(NamedTuple):
    """
    An entry to be appended.

    `fragment` is as `model.encode_fragment` made it, and says the same as the rest,
    which is what the store goes by. A player that has muted the `type` does not get it.
    `expires_ms` is Unix time, 0 for never. One with a `collapse_key` takes the place of
    the last one of that key, if that is still there. On ``latest`` it is live only on
    the device used last of those that somebody listens on; with none of these, on all.
    """

    fragment: bytes
    type: str = ""
    expires_ms: int = 0
    collapse_key: str = ""
    device: Literal["all", "latest"] = "all"


class Once(NamedTuple):
    """An idempotency key and the digest of the request it belongs to."""

    key: str
    digest: str


class AppendResult(NamedTuple):
    """
    Where a batch stands in the log; `replayed` when it was there before.

    A position is None where the player has muted the type: nothing was stored.
    """

    positions: list[Position | None]
    replayed: bool

    @property
    def stored_count(self) -> int:
        """How many were stored."""
        return len(self.positions) - self.positions.count(None)

    @property
    def stored(self) -> list[Position]:
        """The positions of what was stored."""
        return [position for position in self.positions if position is not None]


class Read(NamedTuple):
    """What follows a place, with the inbox's counters at the same moment."""

    history: History
    unread: int
    marks: int


class Peek(NamedTuple):
    """
    Where a log stands, as it is written down.

    `ended` is how many of its entries are over; `is_due` is whether the time of more
    has come, which whoever reads the log will write down.
    """

    head: Position
    marks: int
    ended: int
    is_due: bool


class PageEntry:
    """
    An entry and when it was marked as read, in ms; 0 when it was not.

    Args:
        epoch: The log's.
        item: The entry as the log has it. It is taken apart when `entry` is asked for,
            which writing a page out does not.
        read_at_ms: The mark.

    """

    __slots__ = ("_entry", "_epoch", "_item", "read_at_ms")

    def __init__(self, epoch: int, item: list[Any] | None, read_at_ms: int) -> None:
        self._epoch = epoch
        self._item = item
        self._entry: Entry | None = None
        self.read_at_ms = read_at_ms

    @classmethod
    def of(cls, entry: Entry, read_at_ms: int) -> PageEntry:
        """Return an entry that is taken apart already, with its mark."""
        found = cls(entry.epoch, None, read_at_ms)
        found._entry = entry
        return found

    @property
    def entry(self) -> Entry:
        if self._entry is None:
            assert self._item is not None
            self._entry = parse_entry(self._epoch, self._item)
        return self._entry

    @property
    def row(self) -> Row:
        """It as it is written out."""
        if self._item is None:
            entry = self.entry
            stream_id = b"%d-%d" % (entry.at_ms, entry.offset)
            return stream_id, b"%d" % entry.tag, entry.fragment, self.read_at_ms
        stream_id, fields = self._item
        return stream_id, fields[1], fields[3], self.read_at_ms

    def marked(self, read_at_ms: int) -> PageEntry:
        """Return the same entry with another mark."""
        found = PageEntry(self._epoch, self._item, read_at_ms)
        found._entry = self._entry
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PageEntry) and (self.entry, self.read_at_ms) == (
            other.entry,
            other.read_at_ms,
        )

    __hash__ = None  # type: ignore[assignment]  # What is equal need not be known yet.

    def __repr__(self) -> str:
        return f"PageEntry({self.entry!r}, {self.read_at_ms})"


class Page(NamedTuple):
    """
    Entries newest first. `version` changes with anything that a page could show.

    `entries` is None when the caller's version is still the one; the rest means nothing
    then. `following` is a place to go on at, that of an older entry in the range asked
    for; None is the end. Where a great many entries were over it may be the place of
    such a one.
    """

    version: str
    head: Position
    unread: int
    entries: list[PageEntry] | None
    following: Position | None = None


class MarkResult(NamedTuple):
    """The state after a mark: unread entries, entries changed by it, marks version."""

    unread: int
    changed: int
    marks: int


def position_args(positions: Sequence[Position]) -> list[str]:
    """Return places as the scripts take them: time, offset and tag of each."""
    return [str(part) for position in positions for part in position.order]


def bound(position: Position | None, included: bool, default: str) -> str:
    """Return an end of a range of a log as the store takes it."""
    if position is None:
        return default
    if position.is_zero:
        return "0-0"  # Nothing is there; and "(0-0" is no bound to the store.
    return f"{'' if included else '('}{position.at_ms}-{position.offset}"


def parse_position(fields: list[bytes]) -> Position:
    position = Position(*map(int, fields))
    return ZERO if position == ZERO else position  # Who has just come keeps it.


def parse_entry(epoch: int, item: list[Any]) -> Entry:
    """Return the entry that an item of a log is: tag, fragment, then what it has."""
    stream_id, fields = item
    at_ms, _, offset = stream_id.partition(b"-")
    entry = Entry(epoch, int(at_ms), int(offset), int(fields[1]), fields[3])
    if len(fields) == 4:
        return entry
    facts = dict(zip(fields[4::2], fields[5::2], strict=True))
    return entry._replace(
        device=facts.get(b"d", b"").decode(),
        replaces=facts.get(b"r", b"").decode(),
        withdraws=facts.get(b"w", b"").decode(),
        dead=b"x" in facts,
    )


def parse_append_result(reply: bytes) -> AppendResult:
    replayed, epoch, at_ms, offset, tags = reply.split(b" ")
    if tags.isdigit():  # Most batches are of one.
        position = Position(int(epoch), int(at_ms), int(offset), int(tags))
        return AppendResult([position], replayed == b"1")
    positions: list[Position | None] = []
    following = int(offset)
    for tag in tags.split(b","):
        if tag == _NOT_STORED:
            positions.append(None)
        else:
            positions.append(Position(int(epoch), int(at_ms), following, int(tag)))
            following += 1
    return AppendResult(positions, replayed == b"1")


def parse_read(reply: list[Any]) -> Read:
    gap, start, head, unread, marks, items = reply
    newest = parse_position(head)
    history = History(
        parse_position(start),
        newest,
        [parse_entry(newest.epoch, item) for item in items],
        Gap(gap.decode()) if gap else None,
    )
    return Read(history, unread, marks)


def parse_audience(reply: list[Any]) -> Audience:
    head, floor, base, bits = reply
    return Audience(parse_position(head), int(floor), int(base), bits)


def parse_peek(fields: list[bytes | None], now_ms: int) -> Peek:
    *position, marks, ended, ends_at = [int(field or 0) for field in fields]
    return Peek(Position(*position), marks, ended, 0 < ends_at <= now_ms)


def parse_page(reply: list[Any]) -> Page:
    version, *rest = reply
    if not rest:
        return Page(version.decode(), ZERO, 0, None)
    head, unread, marks, items, *follower = rest
    newest = parse_position(head)
    following = None
    if follower:
        following = parse_entry(newest.epoch, follower[0]).position
    entries = _marked(newest.epoch, items, marks)
    return Page(version.decode(), newest, unread, entries, following)


def parse_first_page(
    reply: list[Any], items: list[Any], *, count: int, bytes_max: int
) -> Page | None:
    """
    Return the first page of a log out of two replies: what holds, and what was said.

    Args:
        reply: Where the log stood, and how its newest entries are marked.
        items: The newest items at a later moment, one more than `count` if there are.
        count: Entries at most.
        bytes_max: Fragments at most; one entry comes anyway.

    As nothing is taken out of the middle of a log, or changed, items from its head on
    are those of the earlier moment. None where they are not: something has come since,
    or has left.

    """
    version, head, unread, marks, floor = reply
    newest = parse_position(head)
    due = min(newest.offset - int(floor), count) + 1
    if len(items) != due:
        return None
    if due:
        _, at_ms, offset, tag = head
        (first, (_, first_tag, *_)), (last, _) = items[0], items[-1]
        if first != at_ms + b"-" + offset or first_tag != tag:
            return None
        if not last.endswith(b"-%d" % (newest.offset - due + 1)):
            return None
    shown = min(due, count)
    sizes = [len(fields[3]) for _, fields in items]
    if sum(sizes) > bytes_max:
        weights = accumulate(sizes)
        light = sum(1 for weight in weights if weight <= bytes_max)
        shown = min(shown, max(light, 1))
    following = None
    if shown < due:
        following = parse_entry(newest.epoch, items[shown]).position
    entries = _marked(newest.epoch, items[:shown], marks)
    return Page(version.decode(), newest, unread, entries, following)


def _marked(epoch: int, items: list[Any], marks: list[int]) -> list[PageEntry]:
    """Return the entries of items; without marks there is one for none of them."""
    if not marks:
        return [PageEntry(epoch, item, 0) for item in items]
    # Large entries may have left no room for all that were looked at.
    return [
        PageEntry(epoch, item, read_at_ms)
        for item, read_at_ms in zip(items, marks, strict=False)
    ]

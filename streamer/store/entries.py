"""
What is appended to a log, and what the scripts say of its entries.

Decides how their arguments and replies are written. Knows the items of a log and the
order of fields in a reply. Knows nothing of which script is asked, nor when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

from ..core.subscription import Gap, History
from ..core.views import Audience
from ..model import Entry, Position

__all__ = [
    "GLANCED",
    "Appended",
    "Draft",
    "Glance",
    "Marked",
    "Once",
    "Page",
    "PageEntry",
    "Read",
    "Retention",
    "bound",
    "parse_appended",
    "parse_audience",
    "parse_entry",
    "parse_glance",
    "parse_page",
    "parse_position",
    "parse_read",
    "place_args",
]

GLANCED: Final = ("epoch", "ms", "head", "tag", "marks", "ended", "ends_at")
"""Fields of a log's state, as ``lua/_inbox`` has them, for `parse_glance`."""

_NOT_STORED: Final = b"-"


class Retention(NamedTuple):
    """
    How long entries stay, and by which clock.

    `ms` is the age at which an entry leaves. `clock_ms` gives the time to use; 0 means
    the store's own, which is what makes several nodes agree.
    """

    ms: int
    clock_ms: Callable[[], int] = lambda: 0

    def args(self) -> tuple[int, int]:
        """Return what every script behind ``lua/_inbox`` takes first."""
        return self.ms, self.clock_ms()


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


class Appended(NamedTuple):
    """
    Where a batch stands in the log; `replayed` when it was there before.

    A position is None where the player has muted the type: nothing was stored.
    """

    positions: list[Position | None]
    replayed: bool

    @property
    def stored(self) -> list[Position]:
        """The positions of what was stored."""
        return [position for position in self.positions if position is not None]


class Read(NamedTuple):
    """What follows a place, with the inbox's counters at the same moment."""

    history: History
    unread: int
    marks: int


class Glance(NamedTuple):
    """
    Where a log stands, as it is written down.

    `ended` is how many of its entries are over; `is_due` is whether the time of more
    has come, which whoever reads the log will write down.
    """

    head: Position
    marks: int
    ended: int
    is_due: bool


class PageEntry(NamedTuple):
    """An entry and when it was marked as read, in ms; 0 when it was not."""

    entry: Entry
    read_at_ms: int


class Page(NamedTuple):
    """
    Entries newest first. `version` changes with anything that a page could show.

    `entries` is None when the caller's version is still the one. `following` is a place
    to go on at, that of an older entry in the range asked for; None is the end. Where a
    great many entries were over it may be the place of such a one.
    """

    version: str
    head: Position
    unread: int
    entries: list[PageEntry] | None
    following: Position | None = None


class Marked(NamedTuple):
    """The state after a mark: unread entries, entries changed by it, marks version."""

    unread: int
    changed: int
    marks: int


def place_args(places: Sequence[Position]) -> list[str]:
    """Return places as the scripts take them: time, offset and tag of each."""
    return [str(part) for place in places for part in place[1:]]


def bound(place: Position | None, included: bool, default: str) -> str:
    """Return an end of a range of a log as the store takes it."""
    if place is None:
        return default
    if place.is_zero:
        return "0-0"  # Nothing is there; and "(0-0" is no bound to the store.
    return f"{'' if included else '('}{place.at_ms}-{place.offset}"


def parse_position(fields: list[bytes]) -> Position:
    return Position(*map(int, fields))


def parse_entry(epoch: int, item: list[Any]) -> Entry:
    """Return the entry that an item of a log is: tag, fragment, then what it has."""
    place, fields = item
    at_ms, _, offset = place.partition(b"-")
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


def parse_appended(reply: list[Any]) -> Appended:
    replayed, epoch, at_ms, offset, tags = reply
    positions: list[Position | None] = []
    following = int(offset)
    for tag in tags:
        if tag == _NOT_STORED:
            positions.append(None)
        else:
            positions.append(Position(int(epoch), int(at_ms), following, int(tag)))
            following += 1
    return Appended(positions, bool(replayed))


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


def parse_glance(fields: list[bytes | None], now_ms: int) -> Glance:
    *place, marks, ended, ends_at = [int(field or 0) for field in fields]
    return Glance(Position(*place), marks, ended, 0 < ends_at <= now_ms)


def parse_page(reply: list[Any]) -> Page:
    version, head, unread = reply[:3]
    newest = parse_position(head)
    entries = following = None
    if len(reply) > 3:
        entries = [
            PageEntry(parse_entry(newest.epoch, item), read_at_ms)
            for item, read_at_ms in zip(reply[3], reply[4], strict=True)
        ]
    if len(reply) > 5:
        following = parse_entry(newest.epoch, reply[5]).position
    return Page(version.decode(), newest, unread, entries, following)

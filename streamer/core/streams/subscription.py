"""
Order and completeness for one reader of one log.

Decides which entries a reader gets, and when. Knows positions, entries, and whether an
entry came from history or live. Knows nothing of sockets, Redis, tasks or clocks.

A reader that joins races with the publishers. An entry may arrive live while history is
still being read, arrive twice, or never arrive live at all, because Pub/Sub delivers at
most once. `Subscription` merges history and live entries into one sequence whose
offsets ascend by exactly one. Where it cannot, it reports a gap and the position at
which the sequence goes on::

               on_history() reaches the head
    REPLAYING ---------------------------------> LIVE
        ^                                          |
        +------------------------------------------+
           on_live() finds a hole or another past,
                or mark_stale() is called

While replaying, history is the authority: live entries wait. A page of history settles
everything that was announced before its read began (`begin_read`), and nothing that was
announced later. A lost position needs no third state: the response to a read contains
the gap (`History.gap`), and the reader goes on from the head.

`on_live` cannot detect the loss of the *last* announcement, because nothing follows to
reveal the hole. So the owner of this object calls `mark_stale` after every reconnect of
Pub/Sub and every few seconds; the read that follows is cheap if nothing was missed.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from ...model import Entry, Gap, Position

__all__ = [
    "Delivery",
    "History",
    "ReadFrom",
    "Start",
    "State",
    "Subscription",
    "follows_directly",
]

PENDING_MAX: Final = 64
"""
Live entries held while replaying. Holding fewer costs another read of history, never an
entry; 64 cover the few milliseconds that a read takes at 10,000 entries a second.
"""


class Start(enum.Enum):
    """A point in a log that only the store can resolve to a position."""

    LATEST = "latest"
    """After the newest entry: only entries that are appended from now on."""

    EARLIEST = "earliest"
    """Before the oldest retained entry."""


ReadFrom = Position | Start
"""Where a read of a log begins: after a position, or at a start."""


class State(enum.Enum):
    """Whether a subscription follows its log live or has to read it first."""

    REPLAYING = enum.auto()
    LIVE = enum.auto()


class History(NamedTuple):
    """
    The result of a read of the log.

    `start` is the position after which the log was read, `head` the newest entry's
    position. `entries` follow `start`, oldest first and without a hole. With a `gap`
    there are no entries, and the reader's new position is `head`.
    """

    start: Position
    head: Position
    entries: list[Entry]
    gap: Gap | None = None


class Delivery(NamedTuple):
    """
    What a reader gets next: the gap if there is one, then the entries.

    `resumed_at` is the position at which the sequence goes on after the gap.
    """

    entries: list[Entry]
    gap: Gap | None = None
    resumed_at: Position | None = None


_NOTHING: Final = Delivery([])


def follows_directly(entry: Entry, position: Position) -> bool:
    """
    Whether `entry` can be delivered to a live reader at `position` as it is.

    `Subscription.on_live` would deliver it too; the hub calls this function once for
    all readers at a position.
    """
    same_past = entry.epoch == position.epoch or position.offset == 0
    return same_past and entry.offset == position.offset + 1 and bool(entry.fragment)


class Subscription:
    """
    Merge history and live entries of one log.

    Args:
        read_from: The reader's position, or where it starts.

    """

    __slots__ = ("_pending", "_read_from", "_stale", "live_at")

    def __init__(self, read_from: ReadFrom) -> None:
        self.live_at: Position | None = None
        """
        Position of the last entry delivered while live, None while replaying.

        A caller that delivers the entry directly after it may set it to that entry's
        position: a fan-out reads and changes nothing else.
        """
        self._read_from = read_from
        self._pending: list[Entry] | None = None
        self._stale = True

    @property
    def state(self) -> State:
        return State.REPLAYING if self.live_at is None else State.LIVE

    @property
    def read_from(self) -> ReadFrom:
        """Position of the last entry delivered, a `Start` until history resolves it."""
        return self.live_at or self._read_from

    @property
    def position(self) -> Position:
        """The reader's position. History has to have resolved a `Start` before."""
        position = self.live_at or self._read_from
        assert isinstance(position, Position)
        return position

    def on_live(self, entry: Entry) -> Delivery:
        """
        Take a live entry; return what can be delivered.

        An entry without a fragment was too large to be announced whole: it only says
        that there is something to read. An entry that withdraws another needs none.
        """
        position = self.live_at
        if position is None:
            self._hold(entry)
            return _NOTHING
        # Compare epochs before offsets: a new epoch begins at offset 1, which would
        # otherwise look like a duplicate of an entry of the old epoch. A reader at the
        # zero position has no past that an epoch could contradict.
        if entry.epoch != position.epoch and not position.is_zero:
            self.mark_stale()
            return _NOTHING
        if entry.offset <= position.offset:
            # A duplicate, unless it reveals another past: the same offset with another
            # tag, or a smaller offset with a later time.
            if entry.offset == position.offset:
                same = entry.tag == position.tag
            else:
                same = entry.at_us <= position.at_us
            if not same:
                self.mark_stale()
            return _NOTHING
        whole = entry.fragment or entry.withdraws
        if entry.offset == position.offset + 1 and whole:
            self.live_at = entry.position
            return Delivery([entry])
        self.mark_stale()
        self._hold(entry)
        return _NOTHING

    def begin_read(self) -> ReadFrom:
        """
        Return where to read from. Call it directly before the read is sent.

        Drops the live entries held so far: they were announced before, so the read
        returns them, or the log has lost them. At most one read may be in progress.
        """
        self._pending = None
        self._stale = False
        return self.read_from

    def on_history(self, read_from: ReadFrom, page: History) -> Delivery:
        """
        Take the result of a read after `read_from`; return what can be delivered.

        Ignores a read from anywhere else than this reader's own position. The state is
        still ``REPLAYING`` afterwards, and another read is due, if `page` does not
        reach the head of the log, if the held entries have a hole after it, or if
        `mark_stale` was called after the read began.
        """
        if self.live_at is not None or read_from != self._read_from:
            return _NOTHING
        if page.gap is not None:
            assert not page.entries
            position = page.head
        else:
            position = _end_of(page)
        self._read_from = position
        entries = list(page.entries)
        if position.offset >= page.head.offset and not self._stale:
            self.live_at = position
            pending, self._pending = self._pending, None
            for entry in pending or ():
                entries += self.on_live(entry).entries
        return Delivery(entries, page.gap, page.head if page.gap else None)

    def rewind(self, position: Position) -> None:
        """Go back to `position`: entries delivered after it have reached nobody."""
        self._read_from, self.live_at = position, None
        self._pending, self._stale = None, True

    def mark_stale(self) -> None:
        """Require a read that begins later: an announcement may have been lost."""
        self._read_from, self.live_at = self.read_from, None
        self._stale = True

    def _hold(self, entry: Entry) -> None:
        if self._pending is None:
            self._pending = []
        elif len(self._pending) == PENDING_MAX:
            self._pending.clear()
        self._pending.append(entry)


def _end_of(page: History) -> Position:
    """Return the position after the entries of a read."""
    entries, first = page.entries, page.start.offset + 1
    offsets = range(first, first + len(entries))
    assert [entry.offset for entry in entries] == list(offsets)
    return entries[-1].position if entries else page.start

"""
Order and completeness for one reader of one log.

Decides which entries a reader gets, and when. Knows positions, entries, and whether an
entry came from history or live. Knows nothing of sockets, Redis, tasks or clocks.

A reader that joins races the publishers. An entry may come live while history is still
being read, come twice, or never come live at all, because Pub/Sub delivers at most
once. `Subscription` makes one stream of it whose offsets go up by exactly one, or says
that this cannot be done and where the stream goes on::

                  history() reaches the head
    REPLAYING ---------------------------------> LIVE
        ^                                          |
        +------------------------------------------+
          live() finds a hole or another past, or doubt() is called

While replaying, history is the authority: live entries wait, and each page of history
settles what came before it was asked for (`ask`), and nothing that came after. There is
no third state for a lost place. The log itself says so in the answer to a read
(`History.gap`), and the reader goes on from the head.

What `live` cannot notice is the loss of the *last* message: nothing follows to show the
hole. So whoever drives this class calls `mark_stale` after every reconnect of the feed,
and every few seconds; the read that follows costs nothing when nothing was missed.
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
Live entries held while replaying. Holding fewer costs another read of history, never
an entry; 64 covers the few milliseconds that a read takes at 10,000 entries a second.
"""


class Start(enum.Enum):
    """A place that only the log can resolve."""

    LATEST = "latest"
    """Behind the newest entry: only what comes from here on."""

    EARLIEST = "earliest"
    """In front of the oldest entry that is still kept."""


ReadFrom = Position | Start


class State(enum.Enum):
    """What a subscription waits for."""

    REPLAYING = enum.auto()
    LIVE = enum.auto()


class History(NamedTuple):
    """
    What a read of the log after a place gave.

    `start` is the place resolved, `head` the newest entry's position, `entries` what
    follows `start`, oldest first and without a hole. With a `gap` there are no
    entries, and the reader's new position is `head`.
    """

    start: Position
    head: Position
    entries: list[Entry]
    gap: Gap | None = None


class Delivery(NamedTuple):
    """
    What a reader gets next: first the gap if there is one, then the entries.

    `resumed_at` is where the stream goes on behind a gap.
    """

    entries: list[Entry]
    gap: Gap | None = None
    resumed_at: Position | None = None


_NOTHING: Final = Delivery([])


def follows_directly(entry: Entry, position: Position) -> bool:
    """
    Whether a live reader at `position` may be given `entry` without further ado.

    `Subscription.live` would say so too; this is asked once for all who are there.
    """
    same_past = entry.epoch == position.epoch or position.offset == 0
    return same_past and entry.offset == position.offset + 1 and bool(entry.fragment)


class Subscription:
    """
    Merge history and live entries of one log.

    Args:
        place: Where the reader is.

    """

    __slots__ = ("_pending", "_read_from", "_stale", "live_at")

    def __init__(self, read_from: ReadFrom) -> None:
        self.live_at: Position | None = None
        """
        Position of the last entry delivered while live, None while replaying.

        Whoever delivers the entry right behind it may set it to that one's position:
        this is all that a fan-out has to look at and to change.
        """
        self._read_from = read_from
        self._pending: list[Entry] | None = None
        self._stale = True

    @property
    def state(self) -> State:
        return State.REPLAYING if self.live_at is None else State.LIVE

    @property
    def read_from(self) -> ReadFrom:
        """Position of the last entry delivered; a `Start` until history resolves it."""
        return self.live_at or self._read_from

    @property
    def position(self) -> Position:
        """The reader's position; only once history has resolved the place."""
        position = self.live_at or self._read_from
        assert isinstance(position, Position)
        return position

    def on_live(self, entry: Entry) -> Delivery:
        """
        Take an entry from the feed; return what may be delivered.

        An entry without a fragment was too large to be announced whole: it counts as
        word that there is something to read. One that withdraws needs none.
        """
        position = self.live_at
        if position is None:
            self._hold(entry)
            return _NOTHING
        # Compare epochs before offsets: a new epoch begins at offset 1, which would
        # otherwise pass for a duplicate of an entry of the old one. A reader with
        # nothing behind it has no past that an epoch could contradict.
        if entry.epoch != position.epoch and not position.is_zero:
            self.mark_stale()
            return _NOTHING
        if entry.offset <= position.offset:
            # A late copy, unless it shows another past: the same offset with another
            # tag, or a smaller one of a later time.
            if entry.offset == position.offset:
                same = entry.tag == position.tag
            else:
                same = entry.at_ms <= position.at_ms
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
        Return the place to read after. Call it right before the read is sent.

        What waits until here is let go: it was announced before, so the read has it,
        or the log has lost it. One read at a time may be under way.
        """
        self._pending = None
        self._stale = False
        return self.read_from

    def on_history(self, read_from: ReadFrom, page: History) -> Delivery:
        """
        Take what a read after `asked` gave; return what may be delivered.

        A read that was asked for another place than this reader's is ignored. The state
        is still ``REPLAYING`` afterwards when `page` does not reach the head of the
        log, when what waited shows a hole behind it, and when there was reason to doubt
        after the read was asked for, be it for another reader: ask again.
        """
        if self.state is State.LIVE or read_from != self.read_from:
            return _NOTHING
        if page.gap is not None:
            assert not page.entries
            self._read_from = page.head
        else:
            self._advance(page)
        entries = list(page.entries)
        if self.position.offset >= page.head.offset and not self._stale:
            self.live_at = self.position
            pending, self._pending = self._pending, None
            for entry in pending or ():
                entries += self.on_live(entry).entries
        return Delivery(entries, page.gap, page.head if page.gap else None)

    def rewind(self, position: Position) -> None:
        """Go back: what was delivered behind `position` has reached nobody."""
        self._read_from, self.live_at = position, None
        self._pending, self._stale = None, True

    def mark_stale(self) -> None:
        """The feed may have dropped something: only a read yet to come can say."""
        self._read_from, self.live_at = self.read_from, None
        self._stale = True

    def _advance(self, page: History) -> None:
        self._read_from = page.start
        for entry in page.entries:
            assert entry.offset == self.position.offset + 1
            self._read_from = entry.position

    def _hold(self, entry: Entry) -> None:
        if self._pending is None:
            self._pending = []
        elif len(self._pending) == PENDING_MAX:
            self._pending.clear()
        self._pending.append(entry)

"""
This process's map from log to readers.

Decides who is offered an entry. Knows readers and their strands by a small protocol,
and which of their logs have to be read. Never waits: `dispatch` offers an entry to
everybody in its log before it returns, and no reader can hold up another.

A reader that is not live, because it has just joined, saw a hole or doubts its feed,
is *behind*: its log is put into `behind`, and whoever reads logs is woken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

from .core.counters import Transport
from .core.streams.audience_subscription import Listener, Strand
from .core.streams.broadcast_group import Crowd
from .core.streams.cursor import Cursor
from .core.streams.subscription import (
    History,
    Place,
    Start,
    Subscription,
    is_plainly_next,
)
from .core.streams.views import is_behind
from .errors import REPLACED, Disconnect
from .model import Entry, Log, Position, Topic

__all__ = ["Follower", "Hub", "Reader"]


class Follower(Protocol):
    """Who is in one log: a reader in its player's, or one of its strands."""

    @property
    def subscription(self) -> Subscription:
        """Its place in the log, to be worked with."""

    @property
    def joining(self) -> bool:
        """Whether no read of the log has reached it yet."""

    @property
    def congested(self) -> bool:
        """Whether it would rather not be given history at the moment."""

    def offer(self, entry: Entry) -> None:
        """Take a live entry."""

    def take(self, entry: Entry, position: Position) -> None:
        """
        Take a live entry that is the next one, and is here whole.

        `position` is the entry's; all who take it are to keep the same object.
        """

    def passing(self, notification: bytes) -> None:
        """Take a notification that is in no log."""

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        """Take what a read of the log after `asked` gave."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, for a reason; come back after `delay_ms` where the reason allows it."""


class Reader(Follower, Listener, Protocol):
    """Somebody who follows a player's log: a stream's session, or a held poll."""

    subscription: Subscription
    connection: str
    """Its name in the player's leases."""
    device: str
    """What its client is on, "" where it does not say."""
    cursor: Cursor | None
    """Where it is in its audiences; None for their newest entries."""
    topics: tuple[Topic, ...]
    """Topics that it listens to besides the player's own."""
    strands: tuple[Strand, ...]
    """Its places in the logs of its audiences."""
    moved: Callable[[Any], None] | None
    """To be called when one of these has moved."""
    ended: Disconnect | None
    """Why it was ended, if it was."""

    def knows(self, marks: int) -> bool:
        """Whether it has heard of all marks, and has nothing else to ask about."""

    @property
    def transport(self) -> Transport | None:
        """What counts it; None for one that is nobody's connection."""

    def marked(self, *, marks: int, unread: int, body: bytes) -> None:
        """Take word of a read mark."""

    def rewoven(self, strands: tuple[Strand, ...]) -> None:
        """Go on with these strands."""

    def tell_cursor(self) -> None:
        """Say where it is in all its logs, if there is somebody to tell."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return in how many seconds more may be, None for never."""


class Hub:
    """
    Followers by log: readers in players' logs, strands in audiences'.

    Args:
        on_behind: Called when a log got followers that are not live.

    """

    def __init__(self, on_behind: Callable[[], None] = lambda: None) -> None:
        self._readers: dict[Log, list[Reader]] = {}
        self._crowds: dict[Log, Crowd] = {}
        self.fresh: list[Log] = []
        """Logs that have got followers since whoever looks at all of them did."""
        self._on_behind = on_behind
        self.behind: set[Log] = set()

    def __len__(self) -> int:
        return sum(map(len, self._readers.values()))

    def __contains__(self, log: Log) -> bool:
        return log in self._readers or log in self._crowds

    @property
    def logs(self) -> Collection[Log]:
        """Logs that have followers."""
        return [*self._readers, *self._crowds]

    def readers(self, log: Log) -> tuple[Reader, ...]:
        """Return the readers of a player's log."""
        return tuple(self._readers.get(log, ()))

    def followers(self, log: Log) -> tuple[Follower, ...]:
        """Return who is in a log, a player's or an audience's."""
        crowd = self._crowds.get(log)
        return self.readers(log) if crowd is None else tuple(crowd)

    def all_readers(self) -> Iterator[Reader]:
        """Every reader, as of this moment."""
        for readers in tuple(self._readers.values()):
            yield from tuple(readers)

    def attach(self, log: Log, reader: Reader) -> None:
        """Let `reader` follow a player's log, from its place on."""
        readers = self._readers.get(log)
        if readers is None:
            self._readers[log] = [reader]
            self.fresh.append(log)
        else:
            readers.append(reader)
        self._note_behind(log)

    def detach(self, log: Log, reader: Reader) -> bool:
        """Let `reader` go; return whether it was the log's last."""
        readers = self._readers[log]
        readers.remove(reader)
        if not readers:
            del self._readers[log]
            self.behind.discard(log)
        return not readers

    def head(self, audience: Log) -> Position | None:
        """Return where an audience's log stands, if one who is live in it knows."""
        crowd = self._crowds.get(audience)
        return crowd.head if crowd is not None else None

    def weave(self, strand: Strand) -> None:
        """Let a strand follow its audience's log, from its place on."""
        head = self.head(strand.log)
        if strand.log not in self._crowds:
            self._crowds[strand.log] = Crowd(strand.log)
            self.fresh.append(strand.log)
        self._crowds[strand.log].add(strand)
        if head is not None and strand.place in (Start.LATEST, head):
            # Others have all there is. Reading it would say so once more, for each of
            # thousands who come to everybody's log.
            place = strand.subscription.ask()
            strand.history(place, History(head, head, []), unread=0, marks=0)
        else:
            self._note_behind(strand.log)

    def unweave(self, strand: Strand) -> None:
        """Let a strand go."""
        crowd = self._crowds[strand.log]
        crowd.remove(strand)
        if not crowd:
            del self._crowds[strand.log]
            self.behind.discard(strand.log)

    def moved(self, now_s: float) -> Iterator[Any]:
        """Whose strands have moved among others' and who is to be told so now."""
        for crowd in self._crowds.values():
            for strand in crowd.tell(now_s):
                yield strand.listener

    def dispatch(self, log: Log, entry: Entry) -> bool:
        """Offer a live entry to everybody in its log; return whether one has got it."""
        position = entry.position
        crowd = self._crowds.get(log)
        if crowd is None:
            return self._offer(log, self._readers.get(log, ()), entry, position)
        level = crowd.take(entry, position)
        alone = self._offer(log, crowd.apart, entry, position)
        for strand in tuple(crowd.apart):
            if strand.live_at is position and is_behind(strand.joined, entry):
                crowd.level(strand, position)
        return level or alone

    def _offer(
        self, log: Log, followers: Iterable[Follower], entry: Entry, position: Position
    ) -> bool:
        """Offer an entry to each by itself; return whether one has got it."""
        behind = taken = False
        # Those who got the last entry from here share its position, the very object:
        # that one comparison tells that an entry is the next one for them as well.
        before: Position | None = None
        for follower in tuple(followers):
            subscription = follower.subscription
            at = subscription.live_at
            if at is not None and (at is before or is_plainly_next(entry, at)):
                before = at
                follower.take(entry, position)
            else:
                follower.offer(entry)
                if subscription.live_at == position:
                    subscription.live_at = position
            if subscription.live_at is None:
                behind = True
            else:
                taken = True
        if behind:
            self._note_behind(log)
        return taken

    def passing(self, log: Log, notification: bytes) -> None:
        """Give everybody in a log a notification, JSON, that is not in it."""
        crowd = self._crowds.get(log)
        if crowd is not None:
            crowd.passing(notification)
        for reader in self.readers(log):
            reader.passing(notification)

    def marked(self, log: Log, *, marks: int, unread: int, body: bytes) -> None:
        """Tell every reader of a log of a read mark."""
        for reader in self.readers(log):
            reader.marked(marks=marks, unread=unread, body=body)

    def replace(self, log: Log, connection: str) -> None:
        """End the reader of that name, if it is here."""
        for reader in self.readers(log):
            if reader.connection == connection:
                reader.end(REPLACED)

    def doubt(self, log: Log) -> None:
        """The feed of a log may have dropped something."""
        followers = self.followers(log)
        for follower in followers:
            follower.subscription.doubt()
        if followers:
            self._note_behind(log)

    def is_level(self, log: Log, head: Position, marks: int) -> bool:
        """Whether nobody in a log that stands there has missed anything."""
        crowd = self._crowds.get(log)
        readers = self._readers.get(log, ())
        if crowd is None:
            places = {reader.subscription.live_at for reader in readers}
        else:
            places = crowd.places()
        if None in places and log not in self.behind:
            return False  # Nobody is about to read it.
        return places <= {head, None} and all(r.knows(marks) for r in readers)

    def places(self, log: Log) -> dict[Place, list[Follower]]:
        """Return those in a log that need history, by where they are. O(followers)."""
        places: dict[Place, list[Follower]] = {}
        # Who is level with others is live.
        crowd = self._crowds.get(log)
        there = self._readers.get(log, ()) if crowd is None else crowd.apart
        behind = [f for f in there if f.subscription.live_at is None]
        for follower in behind:
            places.setdefault(follower.subscription.place, []).append(follower)
        return places

    def _note_behind(self, log: Log) -> None:
        self.behind.add(log)
        self._on_behind()

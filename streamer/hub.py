"""
This process's map from log to readers.

Decides which readers are offered an entry, and which logs need a read. Knows readers
and their subscriptions by small protocols. Never waits, and no reader can delay
another. `dispatch` offers an entry to the readers of its log in portions: before it
returns as far as the turn of the event loop has room, and in the next turns the rest.

A reader that is not live, because it has just joined, saw a hole or was marked stale,
needs a read of its log. The hub puts the log into `needs_read` and calls back, so that
`service.streams.catch_up` reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .core.counters import TransportCounters
from .core.portions import Portions, Steps
from .core.streams.audience_followers import (
    INDIVIDUAL_COST,
    AudienceFollowers,
    individuals_max,
)
from .core.streams.audience_subscription import (
    AudienceSubscription,
    OpenStream,
    StreamOwner,
)
from .core.streams.broadcast_group import GROUP_MAX
from .core.streams.cursor import Cursor
from .core.streams.subscription import (
    History,
    ReadFrom,
    Start,
    Subscription,
    follows_directly,
)
from .core.streams.unread_count import InboxCount
from .errors import ERASED, REPLACED, Disconnect
from .model import Entry, Log, Position, Topic

__all__ = ["Follower", "Hub", "Reader", "Stream"]


class Follower(Protocol):
    """
    What follows one log: a reader its player's own, a subscription an audience's.
    """

    subscription: Subscription
    """The subscription to the log; out of date while it is in a group."""

    def own_subscription(self) -> Subscription:
        """Leave the group, if any, and return the subscription."""

    @property
    def joining(self) -> bool:
        """Whether it waits for its first read."""

    @property
    def congested(self) -> bool:
        """Whether it should get no history at the moment."""

    def offer(self, entry: Entry) -> None:
        """Take any live entry."""

    def deliver_next(self, entry: Entry, position: Position) -> None:
        """
        Take a live entry that directly follows and has a fragment.

        `position` is the entry's. Every follower keeps this same object.
        """

    def on_history(
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        """
        Take the result of a read of the log after `read_from`.

        With that of a player's log comes a count of the player's inbox.
        """

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, and let the client reconnect after `delay_ms`."""


class Stream(OpenStream, Protocol):
    """A reader with an open stream: it gets events that are in no log, too."""

    on_cursor_moved: Callable[[Any], None] | None
    """Called when the cursor's part of an audience has changed and is unsent."""
    log: Log | None
    """The player's log, None while it is not attached."""
    on_count_doubtful: Callable[[Log, bool], None] | None
    """Called with the log when a count is needed, and whether at once."""

    @property
    def is_counting(self) -> bool:
        """Whether its client is told the number of unread notifications."""

    @property
    def can_take_count(self) -> bool:
        """Whether a count can be of use now."""

    def is_current(self, marks: int) -> bool:
        """Whether it has all `marks`, or is about to get them."""

    def on_mark(self, *, marks: int, body: bytes) -> None:
        """Take a read mark, to be sent with a count."""

    def on_count(self, count: InboxCount) -> bool:
        """Take a count of the inbox; return whether no other one is needed."""

    def doubt_count(self, *, at_once: bool = False, is_told: bool = False) -> None:
        """Ask for a count."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, and let the client reconnect after `delay_ms`."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return the seconds until more is, None for never."""

    def due_in_s(self, now_s: float, unix_s: float) -> float:
        """Return the seconds until the next call of `tick` is due."""


class Reader(Follower, StreamOwner, Protocol):
    """The reader of a player: the session of a stream, or a waiting poll."""

    subscription: Subscription
    connection: str
    """The connection's name in the player's leases."""
    device: str
    """The client's device, "" if it has not named one."""
    cursor: Cursor | None
    """Positions to begin at in the audiences' logs, None for their newest entries."""
    topics: tuple[Topic, ...]
    """Topics that the reader has subscribed to, beside the player's own."""
    audience_subscriptions: tuple[AudienceSubscription, ...]
    """One for each audience."""

    @property
    def stream(self) -> Stream | None:
        """The reader itself if it has an open stream, None for a poll."""

    @property
    def transport(self) -> TransportCounters | None:
        """The counters of its transport, None for one without a connection."""

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        """Replace the audience subscriptions."""


class _Delivery:
    """An entry on its way to all followers of a log."""

    __slots__ = ("is_done", "is_late", "is_taken", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.is_done = False
        """Whether all followers have been offered the entry."""
        self.is_taken = False
        """Whether one has taken it."""
        self.is_late = False
        """Whether `dispatch` has returned."""


class Hub:
    """
    Followers by log: readers in players' logs, subscriptions in audiences' logs.

    Args:
        on_needs_read: Called when a log has got followers that are not live.
        on_needs_count: Called when a player's streams need a count, and with whether
            they need it at once.
        on_delivered: Called with an entry that `dispatch` could not offer to all
            followers before it returned, when all of them have been offered it and one
            has taken it.
        portions: Bounds the work of a turn; by default nothing does.
        group_max: How many grouped readers are written to without a pause.

    """

    def __init__(
        self,
        on_needs_read: Callable[[], None] = lambda: None,
        on_needs_count: Callable[[bool], None] = lambda at_once: None,
        on_delivered: Callable[[Log, Entry], None] = lambda log, entry: None,
        *,
        portions: Portions | None = None,
        group_max: int = GROUP_MAX,
    ) -> None:
        self._on_delivered = on_delivered
        self.portions = Portions() if portions is None else portions
        """What does not end in the turn in which it began."""
        self._group_max = group_max
        self._individuals_max = individuals_max(group_max)
        self._delivering: dict[Log, deque[_Delivery]] = {}
        """The entries that not all followers have been offered, oldest first."""
        self._readers: dict[Log, list[Reader]] = {}
        self._audiences: dict[Log, AudienceFollowers] = {}
        self.new_logs: list[Log] = []
        """Logs that have got followers since the position check cleared the list."""
        self._on_needs_read = on_needs_read
        self.needs_read: set[Log] = set()
        """Logs with followers that are not live, and maybe some without."""
        self._on_needs_count = on_needs_count
        self.needs_count: dict[Log, None] = {}
        """Players' logs whose streams need a count, in the order in which they came."""
        self.needs_count_at_once: dict[Log, None] = {}
        """Those of them that need it at once."""
        self._moved_streams: set[OpenStream] = set()
        """Streams whose cursors have changed and are unsent."""
        # One bound method for all streams, since there are many of them.
        self._note_moved_stream = self._moved_streams.add
        self._note_needs_count = self.note_needs_count

    def __len__(self) -> int:
        return sum(map(len, self._readers.values()))

    def __contains__(self, log: Log) -> bool:
        return log in self._readers or log in self._audiences

    @property
    def logs(self) -> Collection[Log]:
        """Logs that have followers."""
        return [*self._readers, *self._audiences]

    def readers(self, log: Log) -> tuple[Reader, ...]:
        """Return the readers of a player's log."""
        return tuple(self._readers.get(log, ()))

    def followers(self, log: Log) -> tuple[Follower, ...]:
        """Return the followers of a log, a player's or an audience's."""
        followers = self._audiences.get(log)
        return self.readers(log) if followers is None else tuple(followers)

    def follower_count(self, log: Log) -> int:
        """Return the number of followers of a log. O(groups)."""
        followers = self._audiences.get(log)
        return len(self._readers.get(log, ()) if followers is None else followers)

    def readers_by_log(self) -> Iterable[tuple[Log, Sequence[Reader]]]:
        """Return the players' logs that have readers, each with them. O(1)."""
        return self._readers.items()

    def reader_counts(self) -> Iterator[tuple[Log, int]]:
        """Yield the players' logs that have readers, each with their number."""
        for log, readers in self._readers.items():
            yield log, len(readers)

    def all_readers(self) -> Iterator[Reader]:
        """Yield every reader."""
        for readers in tuple(self._readers.values()):
            yield from tuple(readers)

    def attach(self, log: Log, reader: Reader) -> None:
        """Let a reader follow a player's log, after its position."""
        readers = self._readers.get(log)
        if readers is None:
            self._readers[log] = [reader]
            self.new_logs.append(log)
        else:
            readers.append(reader)
        if (stream := reader.stream) is not None:
            stream.log = log
            stream.on_cursor_moved = self._note_moved_stream
            stream.on_count_doubtful = self._note_needs_count
        self._note_needs_read(log)

    def detach(self, log: Log, reader: Reader) -> bool:
        """Remove a reader; return whether it was the last one of the log."""
        readers = self._readers[log]
        readers.remove(reader)
        if (stream := reader.stream) is not None:
            stream.on_cursor_moved = stream.on_count_doubtful = None
            self._moved_streams.discard(stream)
        if not readers:
            del self._readers[log]
            self.needs_read.discard(log)
        return not readers

    def head(self, audience: Log) -> Position | None:
        """Return the head of an audience's log, None if no live reader knows it."""
        followers = self._audiences.get(audience)
        return followers.head if followers is not None else None

    def attach_audience(self, sub: AudienceSubscription) -> None:
        """Let a subscription follow its audience's log, after its position."""
        head = self.head(sub.log)
        if sub.log not in self._audiences:
            self._audiences[sub.log] = AudienceFollowers(
                sub.log, group_max=self._group_max
            )
            self.new_logs.append(sub.log)
        self._audiences[sub.log].add(sub)
        if head is not None and sub.read_from in (Start.LATEST, head):
            # Other readers have every entry. A read would only confirm that, once for
            # each of the thousands of readers that join everyone's log.
            read_from = sub.own_subscription().begin_read()
            sub.on_history(read_from, History(head, head, []))
        else:
            self._note_needs_read(sub.log)

    def detach_audience(self, sub: AudienceSubscription) -> None:
        """Remove a subscription."""
        followers = self._audiences[sub.log]
        followers.remove(sub)
        if not followers:
            del self._audiences[sub.log]
            self.needs_read.discard(sub.log)

    def take_due_cursor_updates(self, now_s: float) -> Collection[OpenStream]:
        """Return the streams whose cursors are due at `now_s`; forget that they are."""
        due = set(self._moved_streams)
        self._moved_streams.clear()
        for followers in self._audiences.values():
            for sub in followers.take_due_cursor_updates(now_s):
                if (stream := sub.owner.stream) is not None:
                    due.add(stream)
        return due

    def dispatch(self, log: Log, entry: Entry) -> bool:
        """
        Offer a live entry to all followers.

        Returns whether one has taken it. Returns False if not all could be offered it
        in this turn; `on_delivered` is called later then, if one has taken it.
        """
        position = entry.position
        if self._is_small(log):
            return self._offer(log, self._readers.get(log, ()), entry, position)
        delivery = _Delivery(position)
        self._delivering.setdefault(log, deque()).append(delivery)
        self.portions.add(self._deliver(log, entry, delivery))
        delivery.is_late = True
        return delivery.is_done and delivery.is_taken

    def _is_small(self, log: Log) -> bool:
        """Whether an event goes to so few that it needs no steps, and may go now."""
        return (
            log not in self._audiences
            and len(self._readers.get(log, ())) <= self._individuals_max
            and log not in self._delivering
        )

    def _deliver(self, log: Log, entry: Entry, delivery: _Delivery) -> Steps:
        position = delivery.position

        def offer(followers: Iterable[Follower]) -> None:
            delivery.is_taken |= self._offer(log, followers, entry, position)

        followers = self._audiences.get(log)
        try:
            if followers is None:
                yield from self._each_reader(log, offer)
            else:
                yield from followers.deliver(entry, position, offer)
                delivery.is_taken |= followers.position is position
        except Exception:
            # Those that are left would miss the entry.
            self.mark_stale(log)
            raise
        finally:
            delivery.is_done = True
            self._delivering[log].popleft()
            if not self._delivering[log]:
                del self._delivering[log]
        if delivery.is_late and delivery.is_taken:
            self._on_delivered(log, entry)

    def _each_reader(
        self, log: Log, visit: Callable[[list[Reader]], object]
    ) -> Iterator[int]:
        """Visit each reader of a player's log that does not leave before, in steps."""
        waiting = tuple(self._readers.get(log, ()))
        for first in range(0, len(waiting), self._individuals_max):
            readers = waiting[first : first + self._individuals_max]
            yield INDIVIDUAL_COST * len(readers)
            present = set(self._readers.get(log, ()))
            visit([reader for reader in readers if reader in present])

    def _offer(
        self, log: Log, followers: Iterable[Follower], entry: Entry, position: Position
    ) -> bool:
        """Offer an entry to each follower; return whether one has taken it."""
        is_stale = is_delivered = False
        # Followers that took the last entry here share its position, the same object.
        # So one comparison shows that the entry directly follows for them as well.
        shared: Position | None = None
        for follower in tuple(followers):
            subscription = follower.subscription
            live_at = subscription.live_at
            if live_at is not None and (
                live_at is shared or follows_directly(entry, live_at)
            ):
                shared = live_at
                follower.deliver_next(entry, position)
            else:
                follower.offer(entry)
                if subscription.live_at == position:
                    subscription.live_at = position
            if subscription.live_at is None:
                is_stale = True
            else:
                is_delivered = True
        if is_stale:
            self._note_needs_read(log)
        return is_delivered

    def broadcast_ephemeral(self, log: Log, notification: bytes) -> None:
        """Send the streams of a log a notification, JSON, that is in no log."""

        def send(readers: Iterable[Reader]) -> None:
            for reader in readers:
                if (stream := reader.stream) is not None:
                    stream.send_ephemeral(notification)

        followers = self._audiences.get(log)
        if self._is_small(log):
            send(self.readers(log))
        elif followers is None:
            self.portions.add(self._each_reader(log, send))
        else:
            self.portions.add(followers.broadcast_ephemeral(notification))

    def broadcast_mark(self, log: Log, *, marks: int, body: bytes) -> None:
        """Let the streams of a player's log send a read mark."""
        for stream in self.streams(log):
            stream.on_mark(marks=marks, body=body)

    def streams(self, log: Log) -> list[Stream]:
        """Return the readers of a player's log that have an open stream."""
        streams = (reader.stream for reader in self._readers.get(log, ()))
        return [stream for stream in streams if stream is not None]

    def note_needs_count(self, log: Log, at_once: bool = False) -> None:
        """Have the streams of a player's log take a count that is begun from now on."""
        (self.needs_count_at_once if at_once else self.needs_count)[log] = None
        self._on_needs_count(at_once)

    def note_ended(self, log: Log, *, followers_max: int | None = None) -> None:
        """
        Have the streams that count a log's entries take a count: some have ended.

        Does nothing if an audience's log has more than `followers_max`.
        """
        followers = self._audiences.get(log)
        if followers is None:
            if log in self._readers:
                self.note_needs_count(log)
        elif followers_max is None or len(followers) <= followers_max:
            self.portions.add(followers.note_ended())

    def end_replaced(self, log: Log, connection: str) -> None:
        """End the reader of a connection, if it is in this process."""
        for reader in self.readers(log):
            if reader.connection == connection:
                reader.end(REPLACED)

    def end_all(self, log: Log) -> None:
        """End the readers of a player who is erased."""
        for reader in self.readers(log):
            reader.end(ERASED)

    def mark_stale(self, log: Log) -> None:
        """Have all followers of a log read it: an announcement may have been lost."""

        def mark(readers: Iterable[Reader]) -> None:
            for reader in readers:
                reader.own_subscription().mark_stale()
            self._note_needs_read(log)

        followers = self._audiences.get(log)
        if followers is not None:
            self.portions.add(followers.mark_stale(lambda: self._note_needs_read(log)))
        elif self._is_small(log):
            if readers := self.readers(log):
                mark(readers)
        else:
            self.portions.add(self._each_reader(log, mark))

    def is_in_sync(self, log: Log, head: Position, marks: int) -> bool:
        """
        Whether no follower of a log has missed anything.

        `head` and `marks` are the log's head and its version of read marks.
        """
        # Asked of every log several times a minute, so without sets and generators.
        followers = self._audiences.get(log)
        readers = self._readers.get(log, ())
        positions: Iterable[Position | None]
        if followers is None:
            positions = [reader.subscription.live_at for reader in readers]
        else:
            positions = followers.positions()
        is_behind = False
        for position in positions:
            if position is None:
                if log not in self.needs_read:
                    return False  # No read is on its way that would make it live.
            elif position != head:
                is_behind = True
        if is_behind and not self._is_arriving(log, head):
            return False
        for reader in readers:
            stream = reader.stream
            if stream is not None and not stream.is_current(marks):
                return False
        return True

    def _is_arriving(self, log: Log, head: Position) -> bool:
        """Whether the entry at the head of a log is on its way to its followers."""
        # Those that are left get there, or see a hole and need a read.
        deliveries = self._delivering.get(log)
        return bool(deliveries and deliveries[-1].position == head)

    def readers_by_position(
        self, log: Log, readers_max: int | None = None
    ) -> dict[ReadFrom, list[Follower]]:
        """
        Return followers that need a read, by where it begins. O(followers).

        Returns the first `readers_max` of them, all by default.
        """
        readers: dict[ReadFrom, list[Follower]] = {}
        # Grouped subscriptions are live.
        audience = self._audiences.get(log)
        followers: Iterable[Follower] = (
            self._readers.get(log, ()) if audience is None else audience.individual
        )
        left = readers_max
        for follower in followers:
            subscription = follower.subscription
            if subscription.live_at is not None:
                continue
            if left == 0:
                break
            if left is not None:
                left -= 1
            readers.setdefault(subscription.read_from, []).append(follower)
        return readers

    def _note_needs_read(self, log: Log) -> None:
        self.needs_read.add(log)
        self._on_needs_read()

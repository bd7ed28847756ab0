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

from .core.counters import TransportCounters
from .core.streams.audience_subscription import (
    AudienceSubscription,
    OpenStream,
    StreamOwner,
)
from .core.streams.broadcast_group import BroadcastGroup
from .core.streams.cursor import Cursor
from .core.streams.subscription import (
    History,
    ReadFrom,
    Start,
    Subscription,
    follows_directly,
)
from .core.streams.views import is_after
from .errors import REPLACED, Disconnect
from .model import Entry, Log, Position, Topic

__all__ = ["Follower", "Hub", "Reader", "Stream"]


class Follower(Protocol):
    """Who is in one log: a reader in its player's, or one of its strands."""

    subscription: Subscription
    """Its subscription to the log; out of date while it is in a group."""

    def own_subscription(self) -> Subscription:
        """Leave the group it is in, if any, and return its subscription."""

    @property
    def joining(self) -> bool:
        """Whether no read of the log has reached it yet."""

    @property
    def congested(self) -> bool:
        """Whether it would rather not be given history at the moment."""

    def offer(self, entry: Entry) -> None:
        """Take a live entry."""

    def deliver_next(self, entry: Entry, position: Position) -> None:
        """
        Take a live entry that is the next one, and is here whole.

        `position` is the entry's; all who take it are to keep the same object.
        """

    def on_history(
        self, read_from: ReadFrom, history: History, *, unread: int, marks: int
    ) -> None:
        """Take what a read of the log after `read_from` gave."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, for a reason; come back after `delay_ms` where the reason allows it."""


class Stream(OpenStream, Protocol):
    """A reader that is written to, as those know it who tell it what is in no log."""

    on_cursor_moved: Callable[[Any], None] | None
    """To be called when one of its places in its audiences' logs has moved."""

    def is_current(self, marks: int) -> bool:
        """Whether it has heard of all marks, and has nothing else to ask about."""

    def on_mark(self, *, marks: int, unread: int, body: bytes) -> None:
        """Take word of a read mark."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return in how many seconds more may be, None for never."""


class Reader(Follower, StreamOwner, Protocol):
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
    audience_subscriptions: tuple[AudienceSubscription, ...]
    """Its places in the logs of its audiences."""

    @property
    def stream(self) -> Stream | None:
        """The reader itself, if it is written to; None for a poll."""

    @property
    def transport(self) -> TransportCounters | None:
        """What counts it; None for one that is nobody's connection."""

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        """Go on with these strands."""


class Hub:
    """
    Followers by log: readers in players' logs, strands in audiences'.

    Args:
        on_needs_read: Called when a log got followers that are not live.

    """

    def __init__(self, on_needs_read: Callable[[], None] = lambda: None) -> None:
        self._readers: dict[Log, list[Reader]] = {}
        self._groups: dict[Log, BroadcastGroup] = {}
        self.new_logs: list[Log] = []
        """Logs that have got followers since whoever looks at all of them did."""
        self._on_needs_read = on_needs_read
        self.needs_read: set[Log] = set()
        self._moved_streams: set[OpenStream] = set()
        """Streams whose places have moved, and that are to be told so."""
        # One bound method for all, since there are many of them.
        self._note_moved_stream = self._moved_streams.add

    def __len__(self) -> int:
        return sum(map(len, self._readers.values()))

    def __contains__(self, log: Log) -> bool:
        return log in self._readers or log in self._groups

    @property
    def logs(self) -> Collection[Log]:
        """Logs that have followers."""
        return [*self._readers, *self._groups]

    def readers(self, log: Log) -> tuple[Reader, ...]:
        """Return the readers of a player's log."""
        return tuple(self._readers.get(log, ()))

    def followers(self, log: Log) -> tuple[Follower, ...]:
        """Return who is in a log, a player's or an audience's."""
        group = self._groups.get(log)
        return self.readers(log) if group is None else tuple(group)

    def all_readers(self) -> Iterator[Reader]:
        """Every reader, as of this moment."""
        for readers in tuple(self._readers.values()):
            yield from tuple(readers)

    def attach(self, log: Log, reader: Reader) -> None:
        """Let `reader` follow a player's log, from its place on."""
        readers = self._readers.get(log)
        if readers is None:
            self._readers[log] = [reader]
            self.new_logs.append(log)
        else:
            readers.append(reader)
        if (stream := reader.stream) is not None:
            stream.on_cursor_moved = self._note_moved_stream
        self._note_needs_read(log)

    def detach(self, log: Log, reader: Reader) -> bool:
        """Let `reader` go; return whether it was the log's last."""
        readers = self._readers[log]
        readers.remove(reader)
        if (stream := reader.stream) is not None:
            stream.on_cursor_moved = None
            self._moved_streams.discard(stream)
        if not readers:
            del self._readers[log]
            self.needs_read.discard(log)
        return not readers

    def head(self, audience: Log) -> Position | None:
        """Return where an audience's log stands, if one who is live in it knows."""
        group = self._groups.get(audience)
        return group.head if group is not None else None

    def attach_audience(self, sub: AudienceSubscription) -> None:
        """Let a strand follow its audience's log, from its place on."""
        head = self.head(sub.log)
        if sub.log not in self._groups:
            self._groups[sub.log] = BroadcastGroup(sub.log)
            self.new_logs.append(sub.log)
        self._groups[sub.log].add(sub)
        if head is not None and sub.read_from in (Start.LATEST, head):
            # Others have all there is. Reading it would say so once more, for each of
            # thousands who come to everybody's log.
            read_from = sub.own_subscription().begin_read()
            sub.on_history(read_from, History(head, head, []), unread=0, marks=0)
        else:
            self._note_needs_read(sub.log)

    def detach_audience(self, sub: AudienceSubscription) -> None:
        """Let a strand go."""
        group = self._groups[sub.log]
        group.remove(sub)
        if not group:
            del self._groups[sub.log]
            self.needs_read.discard(sub.log)

    def take_due_cursor_updates(self, now_s: float) -> Collection[OpenStream]:
        """Return the streams whose places have moved and that are to be told so now."""
        due = set(self._moved_streams)
        self._moved_streams.clear()
        for group in self._groups.values():
            for sub in group.take_due_cursor_updates(now_s):
                if (stream := sub.owner.stream) is not None:
                    due.add(stream)
        return due

    def dispatch(self, log: Log, entry: Entry) -> bool:
        """Offer a live entry to everybody in its log; return whether one has got it."""
        position = entry.position
        group = self._groups.get(log)
        if group is None:
            return self._offer(log, self._readers.get(log, ()), entry, position)
        delivered = group.deliver(entry, position)
        offered = self._offer(log, group.individual, entry, position)
        for sub in tuple(group.individual):
            if sub.live_at is position and is_after(sub.joined_at, entry):
                group.try_group(sub, position)
        return delivered or offered

    def _offer(
        self, log: Log, followers: Iterable[Follower], entry: Entry, position: Position
    ) -> bool:
        """Offer an entry to each by itself; return whether one has got it."""
        is_stale = is_delivered = False
        # Those who got the last entry from here share its position, the very object:
        # that one comparison tells that an entry is the next one for them as well.
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
        """Give everybody in a log a notification, JSON, that is not in it."""
        group = self._groups.get(log)
        if group is not None:
            group.broadcast_ephemeral(notification)
        for reader in self.readers(log):
            if (stream := reader.stream) is not None:
                stream.send_ephemeral(notification)

    def broadcast_mark(self, log: Log, *, marks: int, unread: int, body: bytes) -> None:
        """Tell every reader of a log of a read mark."""
        for reader in self.readers(log):
            if (stream := reader.stream) is not None:
                stream.on_mark(marks=marks, unread=unread, body=body)

    def replace(self, log: Log, connection: str) -> None:
        """End the reader of that name, if it is here."""
        for reader in self.readers(log):
            if reader.connection == connection:
                reader.end(REPLACED)

    def mark_stale(self, log: Log) -> None:
        """The feed of a log may have dropped something."""
        followers = self.followers(log)
        for follower in followers:
            follower.own_subscription().mark_stale()
        if followers:
            self._note_needs_read(log)

    def is_in_sync(self, log: Log, head: Position, marks: int) -> bool:
        """Whether nobody in a log that stands there has missed anything."""
        group = self._groups.get(log)
        readers = self._readers.get(log, ())
        if group is None:
            positions = {reader.subscription.live_at for reader in readers}
        else:
            positions = group.positions()
        if None in positions and log not in self.needs_read:
            return False  # Nobody is about to read it.
        streams = (reader.stream for reader in readers)
        return positions <= {head, None} and all(
            stream is None or stream.is_current(marks) for stream in streams
        )

    def readers_by_position(self, log: Log) -> dict[ReadFrom, list[Follower]]:
        """Return those in a log that need history, by where they are. O(followers)."""
        readers: dict[ReadFrom, list[Follower]] = {}
        # Who is level with others is live.
        group = self._groups.get(log)
        followers = self._readers.get(log, ()) if group is None else group.individual
        for follower in followers:
            subscription = follower.subscription
            if subscription.live_at is None:
                readers.setdefault(subscription.read_from, []).append(follower)
        return readers

    def _note_needs_read(self, log: Log) -> None:
        self.needs_read.add(log)
        self._on_needs_read()

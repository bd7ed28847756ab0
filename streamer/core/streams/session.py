"""
One open stream: the events it gets, the messages its client may send, and its end.

Decides all of that for a WebSocket or an SSE stream, from the moment its player is
known. Knows the subscriptions, the codec, the limits and the time that it is passed.
Knows nothing of Starlette, asyncio or the store: it writes to a `Sink`, and `receive`
returns a client's command to a caller that may wait for the store.

A stream begins with ``hello``, as soon as the player's own log and the log of each of
the player's audiences have had their first read (`core.streams.greeting`). It ends with
``bye`` and a close code, unless the send buffer has no room for it. After `end` nothing
is written any more, so every method may be called at any time.

A notification of the player's own log comes with the whole cursor, which has the
positions in the audiences' logs as its tail. An audience's notification is the same
bytes for every reader and so has no cursor: `send_cursor` sends it separately, once for
several notifications.

The client counts what it is sent. When its number may be wrong, because of a read mark,
a withdrawal or a gap, the session asks for a count of the inbox (`doubt_count`), and
sends it as soon as it has delivered everything that was counted (`on_count`). A read
mark is sent together with the count that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from ...errors import PROTOCOL, RATE_EXCEEDED, SLOW, TOKEN_INVALID, Disconnect
from ...model import Entry, Gap, Log, Position, Topic, all_plain, encode_position
from ..counters import TransportCounters
from ..limits import RateLimiter
from .audience_subscription import AudienceSubscription
from .batch_writer import BatchWriter, DeliveryProfile
from .client_messages import Command, Ping, parse_message
from .codec import Codec, Hello, WebSocketCodec, fitting
from .cursor import Cursor, part_of
from .greeting import Beginning, FirstEvents, Greeting
from .subscription import Delivery, History, ReadFrom, Subscription
from .unread_count import (
    InboxCount,
    UnreadCount,
    delivered_beyond,
    with_uncounted,
)

__all__ = ["Session", "SessionLimits", "Sink"]

MESSAGES_PER_S: Final = 20
"""Messages that a client may send per second."""

MARKS_UNSENT_MAX: Final = 100
"""Read marks that wait for a count, which is read within milliseconds."""


class Sink(Protocol):
    """Where a session's bytes go. None of its methods waits or raises."""

    @property
    def batch_writer(self) -> BatchWriter:
        """Writes to this sink and to others of its kind at once."""

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        """
        Queue one event; return whether there was room.

        If bytes are queued already, and the event would raise their number above
        `buffer_bytes_max`, there is no room and the event is not queued.
        """

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        """
        Queue events as `write` does one after the other, up to one without room.

        Returns whether there was room for all. The list must not change any more.
        """

    def buffered(self) -> int:
        """Return how many bytes are queued."""

    def waiting_since_s(self) -> float | None:
        """
        Return the monotonic time since which bytes are queued, None if none are.

        When bytes begin to queue, the sink sees to it that `Session.tick` is called
        soon.
        """

    def close(self, disconnect: Disconnect) -> None:
        """Close the connection after everything queued is written."""

    def abort(self, disconnect: Disconnect) -> None:
        """Close the connection and drop everything queued."""


class SessionLimits(msgspec.Struct, frozen=True):
    """The settings of sessions; see `config.Config`."""

    heartbeat_s: int = 25
    send_buffer_bytes: int = 1_048_576
    send_age_s: int = 10


class Session:
    """
    One open stream of one player.

    Args:
        read_from: Where the stream begins in the player's own log.
        codec: Writes events as its transport needs them.
        sink: Takes the bytes.
        limits: The settings.
        pinged_at_s: Monotonic time that counts as that of the last ping.
        expires_at_s: Unix time at which the credential expires, None for never.
        connection: The connection's name in the player's leases.
        device: The client's device, "" if it has not named one.
        transport: The counters of its transport; its own by default.
        cursor: The client's cursor with the positions in the audiences' logs, None to
            begin with their newest entries.
        topics: Topics that this stream has subscribed to, beside the player's own.

    """

    __slots__ = (
        "_codec",
        "_expires_at_s",
        "_greeting",
        "_limits",
        "_marks",
        "_marks_unexplained",
        "_marks_unsent",
        "_pinged_at_s",
        "_rate",
        "_sink",
        "_uncounted",
        "_unread",
        "audience_subscriptions",
        "connection",
        "cursor",
        "device",
        "ended",
        "heard_at_s",
        "log",
        "on_count_doubtful",
        "on_cursor_moved",
        "subscription",
        "topics",
        "transport",
    )

    def __init__(
        self,
        read_from: ReadFrom,
        *,
        codec: Codec,
        sink: Sink,
        limits: SessionLimits,
        pinged_at_s: float,
        expires_at_s: float | None = None,
        connection: str = "",
        device: str = "",
        transport: TransportCounters | None = None,
        cursor: Cursor | None = None,
        topics: tuple[Topic, ...] = (),
    ) -> None:
        self.subscription = Subscription(read_from)
        self.transport = transport or TransportCounters("stream")
        self.connection = connection
        self.device = device
        self.ended: Disconnect | None = None
        self.heard_at_s: float | None = None
        """Monotonic time at which the client was last heard of, None if it was not."""
        self._codec = codec
        self._sink = sink
        self._limits = limits
        self._expires_at_s = expires_at_s
        self.cursor = cursor
        self.topics = topics
        self.audience_subscriptions: tuple[AudienceSubscription, ...] = ()
        """One for each audience; see `set_audiences`."""
        self.on_cursor_moved: Callable[[Session], None] | None = None
        """Called when the cursor's part of an audience has changed and is unsent."""
        self.log: Log | None = None
        """The player's own log, None while the session is not attached to it."""
        self.on_count_doubtful: Callable[[Log, bool], None] | None = None
        """Called with the log when a count is needed, and whether at once."""
        self._greeting: Greeting | None = Greeting()
        """None once the stream has begun."""
        self._unread = UnreadCount()
        self._uncounted: tuple[int, ...] = ()
        """Offsets of the last entries of the own log that count for nobody."""
        self._marks = 0
        """The version of read marks that the client has been sent."""
        self._marks_unsent: list[tuple[int, bytes]] | None = None
        """Versions and bodies of read marks that wait for a count."""
        self._marks_unexplained = 0
        """A version of read marks that was counted and not announced, 0 for none."""
        self._rate: RateLimiter | None = None
        """The rate of the client's messages; most clients send none."""
        self._pinged_at_s = pinged_at_s

    @property
    def stream(self) -> Session:
        """This session; see `hub.Reader`."""
        return self

    @property
    def joining(self) -> bool:
        """Whether the stream has not begun yet."""
        return self._greeting is not None

    @property
    def congested(self) -> bool:
        """Whether it should get no history now: joining, short of room, or ended."""
        return (
            self.ended is not None
            or (self._greeting is not None and self._greeting.has(None))
            or self._sink.buffered() > self._limits.send_buffer_bytes // 4
        )

    @property
    def buffered(self) -> int:
        """How many bytes are queued for the client."""
        return self._sink.buffered()

    @property
    def waiting_since_s(self) -> float | None:
        """Monotonic time since which bytes are queued; see `Sink`."""
        return self._sink.waiting_since_s()

    def own_subscription(self) -> Subscription:
        """Return the subscription to the player's own log; see `hub.Follower`."""
        return self.subscription

    def is_current(self, marks: int) -> bool:
        """Whether the client has been sent all marks, or is about to be."""
        if self._greeting is not None or self.ended is not None:
            return True  # Its log is about to be read, or it gets nothing any more.
        return marks == self._marks or self._marks_unsent is not None

    def deliver_next(self, entry: Entry, position: Position) -> None:
        """Take a live entry that directly follows; see `hub.Follower`."""
        if self._greeting or entry.device or entry.replaces or self.ended:
            self.offer(entry)
            return
        self.subscription.live_at = position
        tail = self._cursor_tail() if self.audience_subscriptions else ""
        self.transport.deliveries += 1
        event = self._codec.entry(entry, tail)
        # `_write`, inlined: a call fewer for each reader of a broadcast.
        if event and not self._sink.write(event, self._limits.send_buffer_bytes):
            self.drop_slow()
        self._unread.counted += 1

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        """Take a live entry of an audience's log; see `StreamOwner`."""
        if entry.device or entry.replaces:
            self.on_audience(sub, Delivery([entry]))
            return
        self.transport.deliveries += 1
        self._write(self._codec.entry(entry, None))
        self._count_entries(sub)
        if self.on_cursor_moved is not None:
            self.on_cursor_moved(self)

    def delivery_profile(self) -> tuple[DeliveryProfile, Sink] | None:
        """Return the profile and the sink for a group; see `OpenStream`."""
        sink = self._sink
        if self._greeting or self.ended:
            return None
        buffer_bytes_max = self._limits.send_buffer_bytes
        return DeliveryProfile(
            sink.batch_writer, self._codec, buffer_bytes_max, self.transport
        ), sink

    def add_group_count(self, count: int, *, cursor_dirty: bool) -> None:
        """Take over what a group has counted; see `OpenStream`."""
        self._unread.counted += count
        if cursor_dirty and self.on_cursor_moved is not None:
            self.on_cursor_moved(self)

    def offer(self, entry: Entry) -> None:
        """Take any live entry of the player's own log."""
        if self.ended is not None:
            return
        if self._greeting is not None and self._greeting.has(None):
            # This log waits for the others to begin; a later read returns the entry.
            self.subscription.mark_stale()
            return
        delivery = self.subscription.on_live(entry)
        if delivery.entries:
            self._write_delivery(None, delivery)

    def on_history(
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        """
        Take the result of a read after `read_from`, as far as there is room for it.

        The stream begins with `count`. The client has no influence on how many bytes a
        read returns, so a large one must not end the stream as slow: entries without
        room are read again later.
        """
        if self.ended is not None or read_from != self.subscription.read_from:
            return
        history = self.trim_to_buffer(history)
        delivery = self.subscription.on_history(read_from, history)
        if self._greeting is not None:
            # If a gap follows, `hello` names the client's old position. A client that
            # loses its connection between the two would never learn of the gap
            # otherwise.
            begin = history.start
            if history.gap is not None and isinstance(read_from, Position):
                begin = read_from
            self._greeting.add(Beginning(None, begin, delivery, count))
            self._greet_if_complete()
            return
        self._write_delivery(None, delivery)
        # An announcement may have been lost, that of a read mark for example.
        self.doubt_count()

    def trim_to_buffer(self, history: History) -> History:
        """Return the entries that fit into this log's share of the send buffer."""
        if not history.entries:
            return history
        room_bytes = (
            self._limits.send_buffer_bytes
            // 2
            // (1 + len(self.audience_subscriptions))
        )
        count = fitting(history.entries, room_bytes)
        if count == len(history.entries):
            return history
        return history._replace(entries=history.entries[:count])

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        """Take a delivery of an audience's log; see `StreamOwner`."""
        if self.ended is not None:
            return
        if self._greeting is not None:
            assert sub.began_at is not None
            self._greeting.add(Beginning(sub, sub.began_at, delivery))
            self._greet_if_complete()
            return
        self._write_delivery(sub, delivery)
        if self.on_cursor_moved is not None and (
            delivery.gap is None or delivery.entries
        ):
            self.on_cursor_moved(self)

    def send_ephemeral(self, notification: bytes) -> None:
        """Send a notification, JSON, that is in no log, if the stream has begun."""
        if self._greeting is None:
            self.transport.deliveries += 1
            self._write(self._codec.ephemeral(notification))

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        """Replace the audience subscriptions."""
        self.audience_subscriptions = audience_subscriptions
        if self._greeting is not None:
            self._greeting.keep(audience_subscriptions)
            self._greet_if_complete()
            return
        if self.on_cursor_moved is not None:
            self.on_cursor_moved(self)
        self.doubt_count()

    def send_cursor(self) -> None:
        """Send the cursor, which names the position in every log."""
        if self._greeting is None and isinstance(self.subscription.read_from, Position):
            own = self.subscription.position
            self._write(self._codec.cursor(self._cursor_at(own)))

    def on_mark(self, *, marks: int, body: bytes) -> None:
        """
        Take a read mark, made on this connection or any other.

        It is sent with the next count that includes it.
        """
        if self._marks_unsent is None:
            self._marks_unsent = []
        elif len(self._marks_unsent) == MARKS_UNSENT_MAX:
            # The client reads its page again.
            self._marks_unsent.clear()
            body = b'"ids":null'
        self._marks_unsent.append((marks, body))
        self.doubt_count(at_once=True)

    def doubt_count(self, *, at_once: bool = False, is_told: bool = False) -> None:
        """
        Ask for a count, because the number that the client has may be wrong.

        A count that was begun before this call does not answer it. With `is_told` the
        client may count otherwise than this session, and is sent the number even if
        that is the same.
        """
        if is_told:
            self._unread.is_doubtful = True
        if self.on_count_doubtful is not None and self.is_counting:
            assert self.log is not None
            self.on_count_doubtful(self.log, at_once)

    @property
    def is_counting(self) -> bool:
        """Whether its transport has a message for the number of unread."""
        return self.ended is None and bool(self._codec.unread(0))

    @property
    def can_take_count(self) -> bool:
        """Whether a count can be of use now: the stream has begun and is complete."""
        return (
            self._greeting is None
            and self.subscription.live_at is not None
            and all(sub.live_at is not None for sub in self.audience_subscriptions)
        )

    def on_count(self, count: InboxCount) -> bool:
        """
        Take a count of the inbox; return whether no other one is needed.

        Another one is needed if the stream has not begun, does not follow the audiences
        that were counted, has not delivered all that was counted, or has learned of a
        later read mark.
        """
        if not self.is_counting:
            return True
        unread = None if self._greeting is not None else self._unread_after(count)
        unsent = self._marks_unsent
        marks_known = self._marks
        if unsent:
            marks_known = max(marks_known, *(marks for marks, _ in unsent))
        if unread is None or count.marks < marks_known:
            return False
        self._marks_unsent = None
        for marks, body in unsent or ():
            self._write_mark(marks=marks, unread=unread, body=body)
        if not unsent and (unread != self.unread or self._unread.is_doubtful):
            self._tell_unread(unread)
        return self._explain_marks(count.marks, unread)

    def _explain_marks(self, marks: int, unread: int) -> bool:
        """
        Send that marks have changed if the second count has found that nothing said so.

        Until then the announcement may still be on its way.
        """
        if marks == self._marks:
            self._marks_unexplained = 0
            return True
        if self._marks_unexplained <= self._marks:
            self._marks_unexplained = marks
            return False
        self._marks_unexplained = 0
        self._write_mark(marks=marks, unread=unread, body=b'"ids":null')
        return True

    def _unread_after(self, count: InboxCount) -> int | None:
        """Return a count with what was delivered beyond it, None if that is unknown."""
        members = [sub for sub in self.audience_subscriptions if sub.is_member]
        if {sub.log for sub in members} != set(count.views):
            return None
        own = self.subscription.read_from
        if not isinstance(own, Position):
            return None
        unread = count.unread
        beyond = delivered_beyond(count.head, own, self._uncounted)
        if beyond is None:
            return None
        unread += beyond
        for sub in members:
            position = sub.read_from
            if not isinstance(position, Position):
                return None
            beyond = delivered_beyond(
                count.audiences[sub.log].head, position, sub.uncounted, sub.joined_at
            )
            if beyond is None:
                return None
            unread += beyond
        return unread

    def receive(self, text: str, now_s: float) -> Command | None:
        """
        Take a message from the client; return it if the caller has to carry it out.

        Answers pings. A message that is not in the protocol, and one more than
        `MESSAGES_PER_S` in a second, ends the stream.
        """
        if self.ended is not None:
            return None
        self.heard_at_s = now_s
        if self._rate is None:
            self._rate = RateLimiter(MESSAGES_PER_S, burst=MESSAGES_PER_S)
        if not self._rate.allow(now_s):
            self.end(RATE_EXCEEDED, delay_ms=1_000)
            return None
        message = parse_message(text)
        if message is None:
            self.end(PROTOCOL)
        elif isinstance(message, Ping):
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.pong())
        elif isinstance(message, Command):
            return message
        return None

    def reply(self, ref: str, unread: int | None = None) -> None:
        """Answer a command. One without a reference gets no answer."""
        if ref:
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.reply(ref, unread))

    def fail(self, ref: str, problem: str) -> None:
        """Report the failure of a command, if it has a reference."""
        if ref:
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.error(ref, problem))

    def renew(self, expires_at_s: float | None) -> None:
        """Use a new credential's expiry from now on."""
        self._expires_at_s = expires_at_s

    def tick(self, now_s: float, unix_s: float) -> float:
        """
        Do what is due: end an expired or a stuck stream, send a ping.

        Returns the seconds until the next call is due. While bytes are queued, that is
        at most half of `send_age_s`, so that a stuck stream is found within one and a
        half times the allowed time.
        """
        waiting_since_s = self._sink.waiting_since_s()
        if (
            waiting_since_s is not None
            and now_s - waiting_since_s >= self._limits.send_age_s
        ):
            # Also after the end: a client that does not read its `bye` would keep its
            # slot for as long as it likes.
            self.drop_slow()
        elif self.ended is not None:
            pass
        elif self._expires_at_s is not None and unix_s >= self._expires_at_s:
            self.end(TOKEN_INVALID)
        elif now_s - self._pinged_at_s >= self._limits.heartbeat_s:
            self._pinged_at_s = now_s
            self._write(self._codec.ping())
        return self.due_in_s(now_s, unix_s)

    def due_in_s(self, now_s: float, unix_s: float) -> float:
        """Return the seconds until the next call of `tick` is due."""
        due_in_s = self._pinged_at_s + self._limits.heartbeat_s - now_s
        if self._expires_at_s is not None:
            due_in_s = min(due_in_s, self._expires_at_s - unix_s)
        if self._sink.waiting_since_s() is not None:
            due_in_s = min(due_in_s, self._limits.send_age_s / 2)
        return due_in_s

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """Send ``bye`` and close. The first reason counts."""
        if self.ended is None:
            self._write(self._codec.bye(disconnect, delay_ms))
        if self.ended is None:
            self.stop(disconnect)
            self._sink.close(disconnect)

    def stop(self, disconnect: Disconnect) -> None:
        """Write nothing any more. The caller closes the connection itself."""
        self.ended = disconnect
        for sub in self.audience_subscriptions:
            sub.leave_group()

    def drop_slow(self) -> None:
        """Abort the connection of a client that does not read fast enough."""
        # Without `bye`, which would queue after everything else.
        if self.ended is None:
            self.stop(SLOW)
        assert self.ended is not None
        self._sink.abort(self.ended)

    def _greet_if_complete(self) -> None:
        greeting, subs = self._greeting, self.audience_subscriptions
        if greeting is None or not greeting.is_complete(subs):
            return
        self._greeting = None
        self.cursor = None
        room_bytes = self._limits.send_buffer_bytes // 2
        self._greet(greeting.first_events(subs, room_bytes))

    def _greet(self, first: FirstEvents) -> None:
        """Write the stream's first events; entries without room are read again."""
        count = first.counted
        if count is not None:
            self._marks = count.marks
        unsent = [mark for mark in self._marks_unsent or () if mark[0] > self._marks]
        self._marks_unsent = unsent or None
        self._unread.set(first.unread, self._grouped_unread)
        hello = Hello(first.cursor, self._limits.heartbeat_s, first.unread, self._marks)
        events = [self._codec.hello(hello)]
        for sub, gap, cursor, unread in first.gaps:
            events.append(self._gap_event(sub, gap, cursor))
            self._unread.set(unread, self._grouped_unread)
            events.append(self._codec.unread(unread))
        for sub, entries, tail in first.runs:
            events += self._entry_events(sub, entries, tail)
        self._write_events(events)
        for sub, position in first.postponed.items():
            (sub or self).own_subscription().rewind(position)
        if first.runs:
            # The client may drop repeats without counting them, and some of these
            # entries may have been read on another connection.
            self._unread.is_doubtful = True
        if count is None or not self.on_count(count) or self._began_beyond(count):
            self.doubt_count(at_once=True)
        if (
            self.audience_subscriptions
            and first.runs
            and self.on_cursor_moved is not None
        ):
            self.on_cursor_moved(self)

    def _cursor_at(self, own: Position) -> str:
        return encode_position(own) + self._cursor_tail()

    def _cursor_tail(self) -> str:
        return "".join([sub.cursor_part for sub in self.audience_subscriptions])

    @property
    def unread(self) -> int:
        """The number of unread notifications that the client has been sent."""
        return self._unread.counted + self._grouped_unread

    @property
    def _grouped_unread(self) -> int:
        unread = 0
        for sub in self.audience_subscriptions:
            if sub.group is not None:
                unread += sub.grouped_unread
        return unread

    def _began_beyond(self, count: InboxCount) -> bool:
        """Whether an audience has moved between its count and its first read."""
        return any(
            sub.log in count.audiences
            and sub.began_at is not None
            and sub.began_at.offset > count.audiences[sub.log].head.offset
            for sub in self.audience_subscriptions
        )

    def _write_mark(self, *, marks: int, unread: int, body: bytes) -> None:
        self._marks = max(marks, self._marks)
        self._unread.set(unread, self._grouped_unread)
        self._write(self._codec.read(marks=self._marks, unread=unread, body=body))

    def _tell_unread(self, unread: int) -> None:
        self._unread.set(unread, self._grouped_unread)
        self._write(self._codec.unread(unread))

    def _count_entries(self, sub: AudienceSubscription | None, count: int = 1) -> None:
        """Count notifications that were sent, as the client does."""
        if sub is None or sub.is_counted:
            self._unread.counted += count
        elif sub.is_member:
            self.doubt_count(is_told=True)

    def _note_uncounted(self, sub: AudienceSubscription | None, entry: Entry) -> None:
        """Remember an entry that is no unread notification, for anybody."""
        if sub is None:
            self._uncounted = with_uncounted(self._uncounted, entry.offset)
        else:
            sub.uncounted = with_uncounted(sub.uncounted, entry.offset)

    def _write_delivery(
        self, sub: AudienceSubscription | None, delivery: Delivery
    ) -> None:
        events = []
        resumed_at = delivery.resumed_at
        if delivery.gap is not None and resumed_at is not None:
            if sub is None:
                cursor = self._cursor_at(resumed_at)
            else:
                parts = [
                    part_of(s.log, resumed_at) if s is sub else s.cursor_part
                    for s in self.audience_subscriptions
                ]
                cursor = encode_position(self.subscription.position) + "".join(parts)
            events.append(self._gap_event(sub, delivery.gap, cursor))
            self.doubt_count(at_once=True, is_told=True)
        if delivery.entries:
            tail = self._cursor_tail() if sub is None else None
            # Without a gap the list is the codec's own, so that it is framed once for
            # all readers that are sent the same entries.
            of_entries = self._entry_events(sub, delivery.entries, tail)
            events = [*events, *of_entries] if events else of_entries
        self._write_events(events)

    def _gap_event(
        self, sub: AudienceSubscription | None, gap: Gap, cursor: str
    ) -> bytes:
        """Count a gap; return its event."""
        self.transport.gaps[gap] += 1
        # Offsets may start again at 1.
        if sub is None:
            self._uncounted = ()
        else:
            sub.uncounted = ()
        return self._codec.gap(gap, cursor, sub.log if sub else None)

    def _entry_events(
        self, sub: AudienceSubscription | None, entries: list[Entry], tail: str | None
    ) -> list[bytes]:
        """Count entries that are about to be sent; return their events."""
        if not all_plain(entries):
            return [
                event
                for entry in entries
                for event in self._events_of(sub, entry, tail)
            ]
        self.transport.deliveries += len(entries)
        self._count_entries(sub, len(entries))
        return self._codec.entries(entries, tail)

    def _events_of(
        self, sub: AudienceSubscription | None, entry: Entry, tail: str | None
    ) -> Iterator[bytes]:
        """Count any entry; yield its events, of which there may be none."""
        if not entry.is_shown:
            self._note_uncounted(sub, entry)
        is_elsewhere = entry.device and self.device not in ("", entry.device)
        if entry.withdraws or entry.replaces or is_elsewhere:
            # The inbox has the notification on every device.
            self.doubt_count()
        if entry.replaces:
            # Also if this entry has ended: the client may show the one it replaced.
            yield self._codec.replaced(entry)
        # The reader moves past ended entries and those for other devices all the same.
        if entry.ended or is_elsewhere:
            return
        self.transport.deliveries += 1
        yield self._codec.entry(entry, tail)
        if not entry.withdraws:
            self._count_entries(sub)

    def _write_events(self, events: list[bytes]) -> None:
        """Write events at once, as `_write` does one after the other."""
        if self.ended is not None or not events:
            return
        if not all(events):
            events = [event for event in events if event]
        if not self._sink.write_events(events, self._limits.send_buffer_bytes):
            self.drop_slow()

    def _write(self, event: bytes) -> None:
        if self.ended is not None or not event:
            return
        if not self._sink.write(event, self._limits.send_buffer_bytes):
            self.drop_slow()

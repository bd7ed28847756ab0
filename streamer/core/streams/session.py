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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ...errors import PROTOCOL, RATE_EXCEEDED, SLOW, TOKEN_INVALID, Disconnect
from ...model import Entry, Gap, Position, Topic, encode_position
from ..counters import TransportCounters
from ..limits import RateLimiter
from .audience_subscription import AudienceSubscription
from .batch_writer import BatchWriter, DeliveryProfile
from .client_messages import Command, Ping, parse_message
from .codec import Codec, Hello, WebSocketCodec, fitting
from .cursor import Cursor, part_of
from .greeting import Beginning, FirstEvents, Greeting
from .subscription import Delivery, History, ReadFrom, Subscription
from .unread_count import UnreadCount

__all__ = ["Session", "SessionLimits", "Sink"]

MESSAGES_PER_S: Final = 20
"""Messages that a client may send per second."""


class Sink(Protocol):
    """Where a session's bytes go. None of its methods waits or raises."""

    @property
    def batch_writer(self) -> BatchWriter:
        """Writes to this sink and to others of its kind at once."""

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        """
        Queue one event; return whether there was room.

        There is none if bytes are queued already and the event would bring them to more
        than `buffer_bytes_max`. Then the event is not queued.
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
        "_pinged_at_s",
        "_rate",
        "_sink",
        "_unread",
        "audience_subscriptions",
        "connection",
        "cursor",
        "device",
        "ended",
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
        self._greeting: Greeting | None = Greeting()
        """None once the stream has begun."""
        self._unread = UnreadCount()
        self._marks = 0
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

    def own_subscription(self) -> Subscription:
        """Return the subscription to the player's own log; see `hub.Follower`."""
        return self.subscription

    def is_current(self, marks: int) -> bool:
        """Whether the client's marks and unread count need no read of the store."""
        if self._greeting is not None or self.ended is not None:
            return True  # Its log is about to be read, or it gets nothing any more.
        return marks == self._marks and self._unread.is_confirmed

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
        if sub.is_member:
            self._unread.counted += 1
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
            if entry.withdraws or entry.replaces:
                self.subscription.mark_stale()

    def on_history(
        self, read_from: ReadFrom, history: History, *, unread: int, marks: int
    ) -> None:
        """
        Take the result of a read after `read_from`, as far as there is room for it.

        `unread` includes the audiences' notifications. The client has no influence on
        how many bytes a read returns, so a large one must not end the stream as slow:
        entries without room are read again later.
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
            self._marks = marks
            self._unread.set(unread, self._grouped_unread)
            self._greeting.add(Beginning(None, begin, delivery))
            self._greet_if_complete()
            return
        head = history.head.offset
        newer = sum(e.is_shown for e in delivery.entries if e.offset > head)
        self._write_delivery(None, delivery)
        if self.subscription.position.offset < history.head.offset:
            return  # The count includes entries that are still to come.
        if marks > self._marks:
            # The announcement was lost, and with it which entries were marked.
            self._write_mark(marks=marks, unread=unread + newer, body=b'"ids":null')
        else:
            self._check_unread(unread + newer)

    def trim_to_buffer(self, history: History) -> History:
        """Return the entries that fit into this log's share of the send buffer."""
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
        elif self.on_cursor_moved is not None:
            self.on_cursor_moved(self)

    def send_cursor(self) -> None:
        """Send the cursor, which names the position in every log."""
        if self._greeting is None and isinstance(self.subscription.read_from, Position):
            own = self.subscription.position
            self._write(self._codec.cursor(self._cursor_at(own)))

    def on_mark(self, *, marks: int, unread: int, body: bytes) -> None:
        """Send a read mark, made on this connection or any other."""
        if self._greeting is None:
            self._write_mark(marks=marks, unread=unread, body=body)
        else:
            # The first read may have been made before the mark.
            self.subscription.mark_stale()

    def receive(self, text: str, now_s: float) -> Command | None:
        """
        Take a message from the client; return it if the caller has to carry it out.

        Answers pings. A message that is not in the protocol, and one more than
        `MESSAGES_PER_S` in a second, ends the stream.
        """
        if self.ended is not None:
            return None
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
        unread = self.unread
        hello = Hello(first.cursor, self._limits.heartbeat_s, unread, self._marks)
        self._write(self._codec.hello(hello))
        for sub, gap, cursor in first.gaps:
            self._write_gap(sub, gap, cursor)
        for sub, entry, tail in first.entries:
            self._write_entry(sub, entry, tail)
        for sub, position in first.postponed.items():
            (sub or self).own_subscription().rewind(position)
        # `hello` has counted these entries already, and the client counts them again.
        if self.unread != unread:
            self._unread.set(unread, self._grouped_unread)
            self._write(self._codec.unread(unread))
        if (
            self.audience_subscriptions
            and first.entries
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
        return sum(sub.grouped_unread for sub in self.audience_subscriptions)

    def _write_mark(self, *, marks: int, unread: int, body: bytes) -> None:
        self._marks = max(marks, self._marks)
        self._unread.mark(unread, self._grouped_unread)
        self._write(self._codec.read(marks=marks, unread=unread, body=body))

    def _check_unread(self, unread: int) -> None:
        if self._unread.check(unread, self._grouped_unread):
            self._write(self._codec.unread(unread))

    def _write_delivery(
        self, sub: AudienceSubscription | None, delivery: Delivery
    ) -> None:
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
            self._write_gap(sub, delivery.gap, cursor)
        tail = self._cursor_tail() if sub is None else None
        for entry in delivery.entries:
            self._write_entry(sub, entry, tail)

    def _write_gap(
        self, sub: AudienceSubscription | None, gap: Gap, cursor: str
    ) -> None:
        self.transport.gaps[gap] += 1
        self._unread.distrust()
        self._write(self._codec.gap(gap, cursor, sub.log if sub else None))

    def _write_entry(
        self, sub: AudienceSubscription | None, entry: Entry, tail: str | None
    ) -> None:
        """Write the events of an entry; there may be none."""
        if entry.withdraws or entry.replaces:
            self._unread.distrust()
        if entry.replaces:
            # Also if this entry has ended: the client may show the one it replaced.
            self._write(self._codec.replaced(entry))
        # The reader moves past ended entries and those for other devices all the same.
        if entry.ended or (entry.device and self.device not in ("", entry.device)):
            return
        self.transport.deliveries += 1
        self._write(self._codec.entry(entry, tail))
        if not entry.withdraws and (sub is None or sub.is_member):
            self._unread.counted += 1

    def _write(self, event: bytes) -> None:
        if self.ended is not None or not event:
            return
        if not self._sink.write(event, self._limits.send_buffer_bytes):
            self.drop_slow()

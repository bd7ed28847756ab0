"""
One stream: what it is sent, what it may say, when it ends.

Decides all of that for a WebSocket or an SSE stream, from the moment its player is
known. Knows the subscription, the codec, the limits and the time it is given. Knows
nothing of Starlette, asyncio or the store: it writes to a `Sink`, and what its client
asks for comes out of `receive` as a command for somebody who may wait.

A stream begins with ``hello`` as soon as the player's log, and that of each audience
the player belongs to, has said where it begins. It ends with ``bye`` and a close code,
unless there is no room left for a farewell. After `end` nothing is written any more, so
everybody may call everything at any time.

A notification of the player's own log has the whole cursor, with the places in the
audiences' logs for its tail. An audience's is the same bytes for everybody, so it has
none: where the reader is in it is told apart, by `send_cursor`, once for many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from ...errors import PROTOCOL, RATE_EXCEEDED, SLOW, TOKEN_INVALID, Disconnect
from ...model import Entry, Gap, Position, Topic, encode_cursor
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


class Sink(Protocol):
    """Where a session's bytes go. None of its methods waits or raises."""

    @property
    def batch_writer(self) -> BatchWriter:
        """What writes to it and others of its kind at once."""

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        """
        Queue one event, and return whether there was room.

        There is none where some is waiting, and that with the event comes to more than
        `buffer_bytes_max` bytes; then nothing is queued.
        """

    def buffered(self) -> int:
        """Return how many bytes the reader has not taken yet."""

    def waiting_since_s(self) -> float | None:
        """
        Return since when the oldest of them waits, a monotonic time.

        When that begins, whoever calls `Session.tick` is to be told to do it soon.
        """

    def close(self, disconnect: Disconnect) -> None:
        """End the connection once everything queued is written."""

    def abort(self, disconnect: Disconnect) -> None:
        """End the connection and drop what is queued."""


class SessionLimits(msgspec.Struct, frozen=True):
    """The settings that a session keeps to; see `config.Config`."""

    heartbeat_s: int = 25
    send_buffer_bytes: int = 1_048_576
    send_age_s: int = 10


class Session:
    """
    One open stream of one player.

    Args:
        place: Where the reader is.
        codec: How its transport writes events.
        sink: Where they go.
        limits: What it keeps to.
        pinged_at_s: Monotonic time from which the first ping is counted.
        expires_at_s: Unix time at which its credential ends, None for never.
        connection: Its name in the player's leases.
        device: What its client is on, "" where it does not say.
        transport: What counts what it is given; its own where nobody asks.
        cursor: Where it is in its audiences, None for their newest entries.
        topics: Topics that this stream alone listens to.

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
        """Its places in the logs of its audiences; whoever attaches them says so."""
        self.on_cursor_moved: Callable[[Session], None] | None = None
        """Called when a place in an audience's log has moved and is to be told."""
        self._greeting: Greeting | None = Greeting()
        """None from `hello` on."""
        self._unread = UnreadCount()
        self._marks = 0
        self._rate: RateLimiter | None = None
        """Of what the client says; most say nothing."""
        self._pinged_at_s = pinged_at_s

    @property
    def stream(self) -> Session:
        return self

    @property
    def joining(self) -> bool:
        """Whether the stream has not begun yet."""
        return self._greeting is not None

    @property
    def congested(self) -> bool:
        """Whether history should wait: for room, or for ever since the stream ended."""
        return (
            self.ended is not None
            or (self._greeting is not None and self._greeting.has(None))
            or self._sink.buffered() > self._limits.send_buffer_bytes // 4
        )

    def own_subscription(self) -> Subscription:
        return self.subscription

    def is_current(self, marks: int) -> bool:
        """Whether a read of its log would tell nothing new; see `hub.Stream`."""
        if self._greeting is not None or self.ended is not None:
            return True  # It is read for, or it is told nothing any more.
        return marks == self._marks and self._unread.is_confirmed

    def deliver_next(self, entry: Entry, position: Position) -> None:
        """Take a live entry that is the next one; see `hub.Follower`."""
        if self._greeting or entry.device or entry.replaces or self.ended:
            self.offer(entry)
            return
        self.subscription.live_at = position
        tail = self._cursor_tail() if self.audience_subscriptions else ""
        self.transport.deliveries += 1
        event = self._codec.entry(entry, tail)
        # As `_write`, which would be one call more for each reader of a broadcast.
        if event and not self._sink.write(event, self._limits.send_buffer_bytes):
            self.drop_slow()
        self._unread.counted += 1

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        """Take the next live entry of an audience's log."""
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
        """
        Return how it may be written to among others; see
        `audience_subscription.OpenStream`.
        """
        sink = self._sink
        if self._greeting or self.ended:
            return None
        buffer_bytes_max = self._limits.send_buffer_bytes
        return DeliveryProfile(
            sink.batch_writer, self._codec, buffer_bytes_max, self.transport
        ), sink

    def add_group_count(self, count: int, *, cursor_dirty: bool) -> None:
        """
        Take over what was noted of a strand of its own; see
        `audience_subscription.OpenStream`.
        """
        self._unread.counted += count
        if cursor_dirty and self.on_cursor_moved is not None:
            self.on_cursor_moved(self)

    def offer(self, entry: Entry) -> None:
        """Take a live entry."""
        if self.ended is not None:
            return
        if self._greeting is not None and self._greeting.has(None):
            # What has begun waits for the other logs; this is read for afterwards.
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
        Take what a read of the log after `read_from` gave, or as much as there is room
        for.

        `unread` counts the audiences too. How much a portion weighs is nothing that the
        reader has a say in, so it must not be cut as slow for it. The rest is read
        again.
        """
        if self.ended is not None or read_from != self.subscription.read_from:
            return
        history = self.trim_to_buffer(history)
        delivery = self.subscription.on_history(read_from, history)
        if self._greeting is not None:
            # With a gap to follow, `hello` leaves the client where it was: cut off
            # between the two, it would otherwise never hear of the gap.
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
            return  # What was counted is still to come.
        if marks > self._marks:
            # The feed did not say which.
            self._write_mark(marks=marks, unread=unread + newer, body=b'"ids":null')
        else:
            self._check_unread(unread + newer)

    def trim_to_buffer(self, history: History) -> History:
        """Return as much of a portion of history as there is room for."""
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
        """
        Take what came in an audience's log, in which `sub` has moved.
        """
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
        """Take a notification that is in no log, JSON: who is here now gets it."""
        if self._greeting is None:
            self.transport.deliveries += 1
            self._write(self._codec.ephemeral(notification))

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        """Go on with other audiences than so far."""
        self.audience_subscriptions = audience_subscriptions
        if self._greeting is not None:
            self._greeting.keep(audience_subscriptions)
            self._greet_if_complete()
        elif self.on_cursor_moved is not None:
            self.on_cursor_moved(self)

    def send_cursor(self) -> None:
        """Say where the reader is in all its logs."""
        if self._greeting is None and isinstance(self.subscription.read_from, Position):
            own = self.subscription.position
            self._write(self._codec.cursor(self._cursor_at(own)))

    def on_mark(self, *, marks: int, unread: int, body: bytes) -> None:
        """Tell the reader of a mark, wherever it was made."""
        if self._greeting is None:
            self._write_mark(marks=marks, unread=unread, body=body)
        else:
            # What begins the stream may have been read before.
            self.subscription.mark_stale()

    def receive(self, text: str, now_s: float) -> Command | None:
        """
        Take a message of the client's; return what somebody has to do about it.

        Pings are answered here. A message that is not of the protocol, or one too many
        a second, ends the stream.
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
        """Answer a command that carried a reference; others go without."""
        if ref:
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.reply(ref, unread))

    def fail(self, ref: str, problem: str) -> None:
        """Say why a command was not carried out, if it carried a reference."""
        if ref:
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.error(ref, problem))

    def renew(self, expires_at_s: float | None) -> None:
        """Go on with a fresh credential."""
        self._expires_at_s = expires_at_s

    def tick(self, now_s: float, unix_s: float) -> float:
        """
        Do what is due: end an expired or stuck stream, ping.

        Returns in how many seconds something may be due again. Where something has
        begun to wait since, that is sooner: in half of what it may wait, so that a
        stream that is stuck is found within one and a half times what is allowed.
        """
        waiting_since_s = self._sink.waiting_since_s()
        if (
            waiting_since_s is not None
            and now_s - waiting_since_s >= self._limits.send_age_s
        ):
            # Also one that has ended: whoever does not take the farewell would keep
            # its slot for as long as it likes.
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
        """Say goodbye and close. The first reason counts."""
        if self.ended is None:
            self._write(self._codec.bye(disconnect, delay_ms))
        if self.ended is None:
            self.stop(disconnect)
            self._sink.close(disconnect)

    def stop(self, disconnect: Disconnect) -> None:
        """Write nothing any more: whoever calls this ends the connection itself."""
        self.ended = disconnect
        for sub in self.audience_subscriptions:
            sub.leave_group()

    def drop_slow(self) -> None:
        """End at once, as a reader that does not take what it gets."""
        # No farewell: it would wait behind the rest.
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
        """Write the stream's first events; what finds no room is read again."""
        unread = self.unread
        hello = Hello(first.cursor, self._limits.heartbeat_s, unread, self._marks)
        self._write(self._codec.hello(hello))
        for sub, gap, cursor in first.gaps:
            self._write_gap(sub, gap, cursor)
        for sub, entry, tail in first.entries:
            self._write_entry(sub, entry, tail)
        for sub, position in first.postponed.items():
            (sub or self).own_subscription().rewind(position)
        # What was read for the beginning was counted in `hello`, and by the client now.
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
        return encode_cursor(own) + self._cursor_tail()

    def _cursor_tail(self) -> str:
        return "".join([sub.cursor_part for sub in self.audience_subscriptions])

    @property
    def unread(self) -> int:
        """How many unread notifications the client knows of."""
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
                cursor = encode_cursor(self.subscription.position) + "".join(parts)
            self._write_gap(sub, delivery.gap, cursor)
        tail = self._cursor_tail() if sub is None else None
        for entry in delivery.entries:
            self._write_entry(sub, entry, tail)

    def _write_gap(
        self, sub: AudienceSubscription | None, gap: Gap, cursor: str
    ) -> None:
        self.transport.gaps[gap] += 1
        self._unread.distrust()
        self._write(
            self._codec.gap(
                gap,
                cursor,
                sub.log if sub else None,
            )
        )

    def _write_entry(
        self,
        sub: AudienceSubscription | None,
        entry: Entry,
        tail: str | None,
    ) -> None:
        """Write an entry's events, which may be none."""
        if entry.withdraws or entry.replaces:
            self._unread.distrust()
        if entry.replaces:
            # Also if it is over by now: the reader may show what it took the place of.
            self._write(self._codec.replaced(entry))
        # What is for another device is behind this reader all the same; and so is what
        # is dead.
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

"""
One stream: what it is sent, what it may say, when it ends.

Decides all of that for a WebSocket or an SSE stream, from the moment its player is
known. Knows the subscription, the codec, the limits and the time it is given. Knows
nothing of Starlette, asyncio or the store: it writes to a `Sink`, and what its client
asks for comes out of `receive` as a command for somebody who may wait.

A stream begins with ``hello`` as soon as the log has said where it begins, and ends
with ``bye`` and a close code, unless there is no room left for a farewell. After `end`
nothing is written any more, so everybody may call everything at any time.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from ..errors import (
    AHEAD_OF_RATE,
    PROTOCOL,
    SLOW,
    TOKEN_INVALID,
    Disconnect,
)
from ..model import Entry, Position, encode_cursor
from .codec import Codec, Hello, WebSocketCodec
from .limits import Rate
from .subscription import Delivery, History, Place, Subscription

__all__ = [
    "Authenticate",
    "Command",
    "MarkRead",
    "Session",
    "SessionLimits",
    "Sink",
    "parse_message",
]

MESSAGES_PER_S: Final = 20
REF_CHARS_MAX: Final = 64
MARK_IDS_MAX: Final = 1_000
ENVELOPE_BYTES: Final = 200
"""What an event adds to its fragment: id, time, cursor and names come to about 170."""


class Sink(Protocol):
    """Where a session's bytes go. None of its methods waits or raises."""

    def write(self, event: bytes) -> None:
        """Queue one event."""

    def buffered(self) -> int:
        """Return how many bytes the reader has not taken yet."""

    def waiting_since_s(self) -> float | None:
        """Return since when the oldest of them waits, a monotonic time."""

    def close(self, disconnect: Disconnect) -> None:
        """End the connection once everything queued is written."""

    def abort(self, disconnect: Disconnect) -> None:
        """End the connection and drop what is queued."""


class SessionLimits(msgspec.Struct, frozen=True):
    """The settings that a session keeps to; see `config.Config`."""

    heartbeat_s: int = 25
    send_buffer_bytes: int = 1_048_576
    send_age_s: int = 10


class MarkRead(
    msgspec.Struct, frozen=True, tag="read", forbid_unknown_fields=True, kw_only=True
):
    """A client's wish to mark as read: exactly one of `ids`, `up_to` and `all`."""

    ids: list[str] | None = None
    up_to: str | None = None
    all: bool | None = None
    ref: str = ""


class Authenticate(msgspec.Struct, frozen=True, tag="auth", forbid_unknown_fields=True):
    """A token: the first message of a stream without one, or a fresh one."""

    token: str


class _Ping(msgspec.Struct, frozen=True, tag="ping"):
    pass


class _Pong(msgspec.Struct, frozen=True, tag="pong"):
    pass


Command = MarkRead | Authenticate
_decode: Final = msgspec.json.Decoder(MarkRead | Authenticate | _Ping | _Pong).decode


def parse_message(text: str) -> MarkRead | Authenticate | _Ping | _Pong | None:
    """Return what a client said, or None if it is no message of the protocol."""
    try:
        message: MarkRead | Authenticate | _Ping | _Pong = _decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    if isinstance(message, MarkRead) and not _is_one_mark(message):
        return None
    return message


def _is_one_mark(message: MarkRead) -> bool:
    chosen = (message.ids is not None, message.up_to is not None, bool(message.all))
    return (
        sum(chosen) == 1
        and len(message.ref) <= REF_CHARS_MAX
        and len(message.ids or ()) <= MARK_IDS_MAX
    )


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

    """

    __slots__ = (
        "_codec",
        "_expires_at_s",
        "_greeted",
        "_limits",
        "_marks",
        "_pinged_at_s",
        "_rate",
        "_sink",
        "connection",
        "device",
        "ended",
        "subscription",
    )

    def __init__(
        self,
        place: Place,
        *,
        codec: Codec,
        sink: Sink,
        limits: SessionLimits,
        pinged_at_s: float,
        expires_at_s: float | None = None,
        connection: str = "",
        device: str = "",
    ) -> None:
        self.subscription = Subscription(place)
        self.connection = connection
        self.device = device
        self.ended: Disconnect | None = None
        self._codec = codec
        self._sink = sink
        self._limits = limits
        self._expires_at_s = expires_at_s
        self._greeted = False
        self._marks = 0
        self._rate = Rate(MESSAGES_PER_S, burst=MESSAGES_PER_S)
        self._pinged_at_s = pinged_at_s

    @property
    def joining(self) -> bool:
        """Whether the stream has not begun yet."""
        return not self._greeted

    @property
    def congested(self) -> bool:
        """Whether history should wait: for room, or for ever since the stream ended."""
        return (
            self.ended is not None
            or self._sink.buffered() > self._limits.send_buffer_bytes // 4
        )

    def offer(self, entry: Entry) -> None:
        """Take a live entry."""
        if self.ended is None:
            self._deliver(self.subscription.live(entry))

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        """
        Take what a read of the log after `asked` gave, or as much as there is room for.

        How much a portion weighs is nothing that the reader has a say in, so it must
        not be cut as slow for it. The rest is read again.
        """
        if self.ended is not None or asked != self.subscription.place:
            return
        history = self._fitting(history)
        delivery = self.subscription.history(asked, history)
        if not self._greeted:
            self._greeted = True
            # With a gap to follow, `hello` leaves the client where it was: cut off
            # between the two, it would otherwise never hear of the gap.
            begin = history.start
            if history.gap is not None and isinstance(asked, Position):
                begin = asked
            hello = Hello(encode_cursor(begin), self._limits.heartbeat_s, unread, marks)
            self._write(self._codec.hello(hello))
        elif marks > self._marks:
            # The feed did not say which.
            body = b'"ids":null'
            self._write(self._codec.read(marks=marks, unread=unread, body=body))
        self._marks = max(marks, self._marks)
        self._deliver(delivery)

    def marked(self, *, marks: int, unread: int, body: bytes) -> None:
        """Tell the reader of a mark, wherever it was made."""
        if self._greeted:
            self._marks = marks
            self._write(self._codec.read(marks=marks, unread=unread, body=body))
        else:
            # What begins the stream may have been read before.
            self.subscription.doubt()

    def receive(self, text: str, now_s: float) -> Command | None:
        """
        Take a message of the client's; return what somebody has to do about it.

        Pings are answered here. A message that is not of the protocol, or one too many
        a second, ends the stream.
        """
        if self.ended is not None:
            return None
        if not self._rate.allow(now_s):
            self.end(AHEAD_OF_RATE, delay_ms=1_000)
            return None
        message = parse_message(text)
        if message is None:
            self.end(PROTOCOL)
        elif isinstance(message, _Ping):
            assert isinstance(self._codec, WebSocketCodec)
            self._write(self._codec.pong())
        elif isinstance(message, MarkRead | Authenticate):
            return message
        return None

    def reply(self, ref: str, unread: int) -> None:
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

    def tick(self, now_s: float, unix_s: float) -> None:
        """Do what is due: end an expired or stuck stream, ping."""
        waiting_since_s = self._sink.waiting_since_s()
        if (
            waiting_since_s is not None
            and now_s - waiting_since_s >= self._limits.send_age_s
        ):
            # Also one that has ended: whoever does not take the farewell would keep
            # its slot for as long as it likes.
            self._cut()
        elif self.ended is not None:
            return
        elif self._expires_at_s is not None and unix_s >= self._expires_at_s:
            self.end(TOKEN_INVALID)
        elif now_s - self._pinged_at_s >= self._limits.heartbeat_s:
            self._pinged_at_s = now_s
            self._write(self._codec.ping())

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """Say goodbye and close. The first reason counts."""
        if self.ended is None:
            self._write(self._codec.bye(disconnect, delay_ms))
        if self.ended is None:
            self.ended = disconnect
            self._sink.close(disconnect)

    def _fitting(self, history: History) -> History:
        room = self._limits.send_buffer_bytes // 2
        for i, entry in enumerate(history.entries):
            room -= len(entry.fragment) + ENVELOPE_BYTES
            if room < 0 and i > 0:
                return history._replace(entries=history.entries[:i])
        return history

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.gap is not None:
            assert delivery.resumed_at is not None
            self._write(self._codec.gap(delivery.gap, delivery.resumed_at))
        for entry in delivery.entries:
            # What is for another device is behind this reader all the same.
            if not entry.device or self.device in ("", entry.device):
                self._write(self._codec.entry(entry))

    def _write(self, event: bytes) -> None:
        if self.ended is not None or not event:
            return
        buffered = self._sink.buffered()
        if buffered and buffered + len(event) > self._limits.send_buffer_bytes:
            self._cut()
            return
        self._sink.write(event)

    def _cut(self) -> None:
        # No farewell: it would wait behind what the reader does not take.
        if self.ended is None:
            self.ended = SLOW
        self._sink.abort(self.ended)

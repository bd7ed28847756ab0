"""
The stream's events as bytes: JSON text for WebSocket, event blocks for SSE.

Decides how an event is written, once for all readers of a transport. Knows the wire as
``clients/PROTOCOL.md`` writes it down. Knows nothing of connections.

Nothing that differs per reader is part of a notification's event, so one `bytes` object
serves everybody. A codec keeps the last entry it wrote: a dispatch offers the same
entry to each reader in turn, and only the first one pays.

An SSE block cannot be broken out of. Data is one line of JSON, in which every control
character is escaped; event names are constants; ids are cursors, which are base64.
(A lone CR ends a line too: HTML Standard, 9.2.6 "Interpreting an event stream".)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from ...errors import Disconnect
from ...model import Entry, Gap, Log

__all__ = ["Codec", "Hello", "SseCodec", "WebSocketCodec", "fitting"]

_encode: Final = msgspec.json.Encoder().encode

ENVELOPE_BYTES: Final = 200
"""What an event adds to its fragment: id, time, cursor and names come to about 170."""


class Hello(msgspec.Struct, frozen=True):
    """The first event of a stream."""

    cursor: str
    heartbeat_s: int
    unread: int
    marks_version: int


def fitting(entries: Sequence[Entry], room_bytes: int) -> int:
    """Return how many of these entries fit into a room as events, at least one."""
    for i, entry in enumerate(entries):
        room_bytes -= len(entry.fragment) + ENVELOPE_BYTES
        if room_bytes < 0 and i > 0:
            return i
    return len(entries)


class Codec(Protocol):
    """
    How one transport writes events. Stateless but for the entry it wrote last.

    What a transport has no words for comes out empty, and is not sent.
    """

    def hello(self, hello: Hello) -> bytes: ...

    def entry(self, entry: Entry, tail: str | None) -> bytes:
        """
        Write a notification, or that one is withdrawn.

        `tail` is what follows the entry's own place in its cursor; None is for an
        audience's, whose place is told apart from it.
        """

    def ephemeral(self, notification: bytes) -> bytes:
        """Write a notification that is in no log, given as JSON."""

    def replaced(self, entry: Entry) -> bytes:
        """Say what the notification to follow takes the place of."""

    def cursor(self, cursor: str) -> bytes:
        """Say where the reader is."""

    def gap(self, gap: Gap, cursor: str, audience: Log | None) -> bytes: ...

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        """`body` says what was marked: the members ``ids``, ``up_to`` or ``all``."""

    def unread(self, unread: int) -> bytes:
        """Correct the count."""

    def ping(self) -> bytes: ...

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes: ...


def _bye(disconnect: Disconnect, delay_ms: int) -> dict[str, Any]:
    return {
        "code": disconnect.code,
        "reason": disconnect.reason,
        "reconnect": disconnect.reconnect,
        "delay_ms": delay_ms,
    }


def _gap(gap: Gap, cursor: str, audience: Log | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"reason": gap.value, "cursor": cursor}
    if audience is not None:
        topic = audience.topic
        fields |= {"everyone": True} if topic is None else {"topic": topic}
    return fields


def _mark(marks: int, unread: int, body: bytes) -> bytes:
    return b'%b,"unread":%d,"marks_version":%d}' % (body, unread, marks)


class _Remembering(ABC):
    """A codec that keeps what it wrote last, so that only the first reader pays."""

    def __init__(self) -> None:
        self._last: tuple[Entry, str | None, bytes] | None = None
        """An entry, the tail it had, and what it came to."""
        self._last_ephemeral = (b"", b"")

    def entry(self, entry: Entry, tail: str | None) -> bytes:
        last = self._last
        if last is None or last[0] is not entry or last[1] != tail:
            self._last = last = (entry, tail, self._entry(entry, tail))
        return last[2]

    def ephemeral(self, notification: bytes) -> bytes:
        if self._last_ephemeral[0] is not notification:
            self._last_ephemeral = (notification, self._ephemeral(notification))
        return self._last_ephemeral[1]

    @abstractmethod
    def _entry(self, entry: Entry, tail: str | None) -> bytes: ...

    @abstractmethod
    def _ephemeral(self, notification: bytes) -> bytes: ...


class WebSocketCodec(_Remembering):
    """Events as JSON objects with a ``type``, one a text message."""

    def hello(self, hello: Hello) -> bytes:
        return b'{"type":"hello",' + _encode(hello)[1:]

    def _entry(self, entry: Entry, tail: str | None) -> bytes:
        cursor, json = entry.cursor_and_json
        cursor_part = b""
        if tail is not None:
            cursor_part = b'"cursor":"%b%b",' % (cursor, tail.encode())
        if entry.withdraws:
            withdrawn = entry.withdraws.encode()
            return b'{"type":"withdrawn",%b"id":"%b"}' % (cursor_part, withdrawn)
        return b'{"type":"notification",%b"notification":%b}' % (cursor_part, json)

    def _ephemeral(self, notification: bytes) -> bytes:
        return b'{"type":"notification","notification":%b}' % notification

    def replaced(self, entry: Entry) -> bytes:
        return _encode({"type": "replaced", "id": entry.replaces, "by": entry.id})

    def cursor(self, cursor: str) -> bytes:
        return b'{"type":"cursor","cursor":"%b"}' % cursor.encode()

    def gap(self, gap: Gap, cursor: str, audience: Log | None) -> bytes:
        return _encode({"type": "gap", **_gap(gap, cursor, audience)})

    def unread(self, unread: int) -> bytes:
        return b'{"type":"unread","unread":%d}' % unread

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        return b'{"type":"read",' + _mark(marks, unread, body)

    def ping(self) -> bytes:
        return b'{"type":"ping"}'

    def pong(self) -> bytes:
        return b'{"type":"pong"}'

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes:
        return _encode({"type": "bye", **_bye(disconnect, delay_ms)})

    def reply(self, ref: str, unread: int | None) -> bytes:
        fields = {} if unread is None else {"unread": unread}
        return _encode({"type": "reply", "ref": ref, **fields})

    def error(self, ref: str, problem: str) -> bytes:
        return _encode({"type": "error", "ref": ref, "problem": problem})


class SseCodec(_Remembering):
    """
    Events as blocks of ``text/event-stream``.

    A notification has no name, so that ``EventSource.onmessage`` gets it; every other
    event has one. Where an event moves the reader, it has an ``id:``.
    """

    def retry(self, delay_ms: int) -> bytes:
        """Tell EventSource how long to wait before it comes back."""
        return b"retry: %d\n\n" % delay_ms

    def hello(self, hello: Hello) -> bytes:
        return b"id: %b\nevent: hello\ndata: %b\n\n" % (
            hello.cursor.encode(),
            _encode(hello),
        )

    def _entry(self, entry: Entry, tail: str | None) -> bytes:
        cursor, json = entry.cursor_and_json
        cursor_part = b""
        if tail is not None:
            cursor_part = b"id: %b%b\n" % (cursor, tail.encode())
        if entry.withdraws:
            withdrawn = entry.withdraws.encode()
            return b'%bevent: withdrawn\ndata: {"id":"%b"}\n\n' % (
                cursor_part,
                withdrawn,
            )
        return b"%bdata: %b\n\n" % (cursor_part, json)

    def _ephemeral(self, notification: bytes) -> bytes:
        return b"data: %b\n\n" % notification

    def replaced(self, entry: Entry) -> bytes:
        fields = _encode({"id": entry.replaces, "by": entry.id})
        return b"event: replaced\ndata: %b\n\n" % fields

    def cursor(self, cursor: str) -> bytes:
        # EventSource remembers it and dispatches nothing, for want of data.
        return b"id: %b\n\n" % cursor.encode()

    def gap(self, gap: Gap, cursor: str, audience: Log | None) -> bytes:
        return b"id: %b\nevent: gap\ndata: %b\n\n" % (
            cursor.encode(),
            _encode(_gap(gap, cursor, audience)),
        )

    def unread(self, unread: int) -> bytes:
        return b'event: unread\ndata: {"unread":%d}\n\n' % unread

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        return b"event: read\ndata: {%b\n\n" % _mark(marks, unread, body)

    def ping(self) -> bytes:
        return b"event: ping\ndata: {}\n\n"

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes:
        # Without a delay the one given at the start stays in force.
        retry = self.retry(delay_ms).removesuffix(b"\n") if delay_ms else b""
        return b"%bevent: bye\ndata: %b\n\n" % (
            retry,
            _encode(_bye(disconnect, delay_ms)),
        )

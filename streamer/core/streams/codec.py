"""
The stream's events as bytes: JSON text for WebSocket, event blocks for SSE.

Decides how an event is written, once for all readers of a transport. Knows the protocol
in ``clients/PROTOCOL.md``. Knows nothing of connections.

A notification's event contains nothing that differs between readers, so one `bytes`
object serves all of them. A codec keeps the last entry that it wrote: a dispatch offers
the same entry to one reader after the other, and only the first has to encode it.

No content can break out of an SSE block. Data is one line of JSON, in which every
control character is escaped; event names are constants; ids are cursors, which are
base64. (A lone CR ends a line, too: HTML Standard, 9.2.6 "Interpreting an event
stream".)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from ...compiled.events import Form, write_events
from ...errors import Disconnect
from ...model import Entry, Gap, Log

__all__ = ["Codec", "Hello", "SseCodec", "WebSocketCodec", "fitting"]

_encode: Final = msgspec.json.Encoder().encode

ENVELOPE_BYTES: Final = 200
"""Bytes that an event adds to its fragment: id, time, cursor and names, about 170."""


class Hello(msgspec.Struct, frozen=True):
    """The first event of a stream."""

    cursor: str
    heartbeat_s: int
    unread: int
    marks_version: int


def fitting(entries: Sequence[Entry], room_bytes: int) -> int:
    """Return how many of the entries, as events, fit into `room_bytes`; at least 1."""
    size = sum([len(entry.fragment) for entry in entries])
    if size + ENVELOPE_BYTES * len(entries) <= room_bytes:
        return len(entries)
    for i, entry in enumerate(entries):
        room_bytes -= len(entry.fragment) + ENVELOPE_BYTES
        if room_bytes < 0 and i > 0:
            return i
    return len(entries)


class Codec(Protocol):
    """
    How one transport writes events. Stateless, except for a cache of the last entry.

    An event that a transport cannot express is empty bytes, and is not sent.
    """

    def hello(self, hello: Hello) -> bytes:
        """Write the first event of a stream."""

    def entry(self, entry: Entry, tail: str | None) -> bytes:
        """
        Write a notification, or the withdrawal of one.

        `tail` follows the entry's own position in the event's cursor. An audience's
        entry has no cursor; its `tail` is None.
        """

    def entries(self, entries: list[Entry], tail: str | None) -> list[bytes]:
        """
        Write several notifications; none of them is a withdrawal.

        The result is the same object for equal entries that follow each other, and must
        not be changed.
        """

    def ephemeral(self, notification: bytes) -> bytes:
        """Write a notification, JSON, that is in no log."""

    def replaced(self, entry: Entry) -> bytes:
        """Write which notification the one that follows replaces."""

    def cursor(self, cursor: str) -> bytes:
        """Write the reader's cursor."""

    def gap(self, gap: Gap, cursor: str, audience: Log | None) -> bytes:
        """Write a gap in the player's own log, or in an audience's."""

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        """
        Write a read mark.

        `body` is the member ``ids``, ``up_to`` or ``all`` that names what was marked.
        """

    def unread(self, unread: int) -> bytes:
        """Write a correction of the unread count."""

    def ping(self) -> bytes:
        """Write a ping."""

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes:
        """Write the last event of a stream."""


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


class _CachingCodec(ABC):
    """A codec that keeps the last events: each is encoded once for all readers."""

    def __init__(self) -> None:
        self._last: tuple[Entry, str | None, bytes] | None = None
        """An entry, the tail of its cursor, and the event made from both."""
        self._last_entries: tuple[list[Entry], str | None, list[bytes]] = [], None, []
        """The same for several."""
        self._last_ephemeral = (b"", b"")

    def entry(self, entry: Entry, tail: str | None) -> bytes:
        last = self._last
        if last is None or last[0] is not entry or last[1] != tail:
            self._last = last = (entry, tail, self._entry(entry, tail))
        return last[2]

    def entries(self, entries: list[Entry], tail: str | None) -> list[bytes]:
        # Readers of an audience that are at the same position get the same objects,
        # which are compared by their identity first.
        last = self._last_entries
        if last[0] != entries or last[1] != tail:
            events = write_events(entries, self._form(tail))
            self._last_entries = last = (entries, tail, events)
        return last[2]

    def ephemeral(self, notification: bytes) -> bytes:
        if self._last_ephemeral[0] is not notification:
            self._last_ephemeral = (notification, self._ephemeral(notification))
        return self._last_ephemeral[1]

    @abstractmethod
    def _form(self, tail: str | None) -> Form:
        """Return how a notification is written."""

    @abstractmethod
    def _entry(self, entry: Entry, tail: str | None) -> bytes: ...

    @abstractmethod
    def _ephemeral(self, notification: bytes) -> bytes: ...


class WebSocketCodec(_CachingCodec):
    """Events as JSON objects with a ``type``, one per text message."""

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

    def _form(self, tail: str | None) -> Form:
        if tail is None:
            return Form(b'{"type":"notification","notification":', None, b"}")
        between = b'%b","notification":' % tail.encode()
        return Form(b'{"type":"notification","cursor":"', between, b"}")

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


class SseCodec(_CachingCodec):
    """
    Events as blocks of ``text/event-stream``, each with data.

    A notification has no event name, so that ``EventSource.onmessage`` gets it; every
    other event has one. An event that moves the reader has an ``id:``.
    """

    def retry(self, delay_ms: int) -> bytes:
        """
        Write the delay after which EventSource reconnects, as the beginning of a block.

        Not as a block of its own: some parsers dispatch one without data.
        """
        return b"retry: %d\n" % delay_ms

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

    def _form(self, tail: str | None) -> Form:
        if tail is None:
            return Form(b"data: ", None, b"\n\n")
        return Form(b"id: ", b"%b\ndata: " % tail.encode(), b"\n\n")

    def _ephemeral(self, notification: bytes) -> bytes:
        return b"data: %b\n\n" % notification

    def replaced(self, entry: Entry) -> bytes:
        fields = _encode({"id": entry.replaces, "by": entry.id})
        return b"event: replaced\ndata: %b\n\n" % fields

    def cursor(self, cursor: str) -> bytes:
        # With a name and data: for a block with only an id some parsers dispatch an
        # empty message.
        text = cursor.encode()
        return b'id: %b\nevent: cursor\ndata: {"cursor":"%b"}\n\n' % (text, text)

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
        # Without a delay the one sent at the start stays in force.
        retry = self.retry(delay_ms) if delay_ms else b""
        return b"%bevent: bye\ndata: %b\n\n" % (
            retry,
            _encode(_bye(disconnect, delay_ms)),
        )

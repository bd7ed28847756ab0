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

from typing import Any, Final, Protocol

import msgspec

from ..errors import Disconnect
from ..model import Entry, Position, encode_cursor
from .subscription import Gap

__all__ = ["Codec", "Hello", "SseCodec", "WebSocketCodec"]

_encode: Final = msgspec.json.Encoder().encode


class Hello(msgspec.Struct, frozen=True):
    """The first event of a stream."""

    cursor: str
    heartbeat_s: int
    unread: int
    marks_version: int


class Codec(Protocol):
    """
    How one transport writes events. Stateless but for the entry it wrote last.

    What a transport has no words for comes out empty, and is not sent.
    """

    def hello(self, hello: Hello) -> bytes: ...

    def entry(self, entry: Entry) -> bytes: ...

    def gap(self, gap: Gap, position: Position) -> bytes: ...

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        """`body` says what was marked: the members ``ids``, ``up_to`` or ``all``."""

    def ping(self) -> bytes: ...

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes: ...


def _bye(disconnect: Disconnect, delay_ms: int) -> dict[str, Any]:
    return {
        "code": disconnect.code,
        "reason": disconnect.reason,
        "reconnect": disconnect.reconnect,
        "delay_ms": delay_ms,
    }


def _mark(marks: int, unread: int, body: bytes) -> bytes:
    return b'%b,"unread":%d,"marks_version":%d}' % (body, unread, marks)


class WebSocketCodec:
    """Events as JSON objects with a ``type``, one a text message."""

    def __init__(self) -> None:
        self._last: tuple[Entry, bytes] | None = None

    def hello(self, hello: Hello) -> bytes:
        return b'{"type":"hello",' + _encode(hello)[1:]

    def entry(self, entry: Entry) -> bytes:
        if self._last is None or self._last[0] is not entry:
            cursor = encode_cursor(entry.position).encode()
            encoded = b'{"type":"notification","cursor":"%b","notification":%b}' % (
                cursor,
                entry.json,
            )
            self._last = (entry, encoded)
        return self._last[1]

    def gap(self, gap: Gap, position: Position) -> bytes:
        return _encode(
            {"type": "gap", "reason": gap.value, "cursor": encode_cursor(position)}
        )

    def read(self, *, marks: int, unread: int, body: bytes) -> bytes:
        return b'{"type":"read",' + _mark(marks, unread, body)

    def ping(self) -> bytes:
        return b'{"type":"ping"}'

    def pong(self) -> bytes:
        return b'{"type":"pong"}'

    def bye(self, disconnect: Disconnect, delay_ms: int) -> bytes:
        return _encode({"type": "bye", **_bye(disconnect, delay_ms)})

    def reply(self, ref: str, unread: int) -> bytes:
        return _encode({"type": "reply", "ref": ref, "unread": unread})

    def error(self, ref: str, problem: str) -> bytes:
        return _encode({"type": "error", "ref": ref, "problem": problem})


class SseCodec:
    """
    Events as blocks of ``text/event-stream``.

    A notification has no name, so that ``EventSource.onmessage`` gets it; every other
    event has one. Where an event moves the reader, it has an ``id:``.
    """

    def __init__(self) -> None:
        self._last: tuple[Entry, bytes] | None = None

    def retry(self, delay_ms: int) -> bytes:
        """Tell EventSource how long to wait before it comes back."""
        return b"retry: %d\n\n" % delay_ms

    def hello(self, hello: Hello) -> bytes:
        return b"id: %b\nevent: hello\ndata: %b\n\n" % (
            hello.cursor.encode(),
            _encode(hello),
        )

    def entry(self, entry: Entry) -> bytes:
        if self._last is None or self._last[0] is not entry:
            cursor = encode_cursor(entry.position).encode()
            encoded = b"id: %b\ndata: %b\n\n" % (cursor, entry.json)
            self._last = (entry, encoded)
        return self._last[1]

    def gap(self, gap: Gap, position: Position) -> bytes:
        cursor = encode_cursor(position)
        return b"id: %b\nevent: gap\ndata: %b\n\n" % (
            cursor.encode(),
            _encode({"reason": gap.value, "cursor": cursor}),
        )

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

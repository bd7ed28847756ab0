"""
Senders: requests over persistent HTTP connections, by timetable or in a window.

The latency of a request is the time from its due time to the end of its response. Knows
as much HTTP/1.1 as the responses need: a status line, and a length or chunks.
"""

from __future__ import annotations

import re
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from .engine import IN, Engine

__all__ = ["NOW", "PLAYER", "SEQUENCE", "Sender", "Template", "is_whole"]

NOW: Final = "now"
"""Template part: the nanosecond at which the message is due, 19 digits."""
PLAYER: Final = "player"
"""Template part: the number of a player, in turn, 7 digits."""
SEQUENCE: Final = "seq"
"""Template part: the sequence number of the request, 10 digits."""

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_CHUNKED = re.compile(rb"\r\n[Tt]ransfer-[Ee]ncoding: *chunked")
REFUSAL_BYTES = 600

_BODILESS = (b"304", b"204")

TemplatePart = bytes | str


class Template:
    """A request with placeholders for the values that differ between requests."""

    def __init__(self, parts: Sequence[TemplatePart], *, players: int = 1) -> None:
        self._parts = list(parts)
        self._players = players

    def render(self, number: int, due_ns: int) -> bytes:
        texts = {
            NOW: b"%019d" % due_ns,
            PLAYER: b"%07d" % (number % self._players),
            SEQUENCE: b"%010d" % number,
        }
        return b"".join(
            texts[part] if isinstance(part, str) else part for part in self._parts
        )


class Sender:
    """
    Requests over a few connections.

    Args:
        engine: The event loop.
        nodes: The servers, which get requests in turn.
        connections: Number of connections to each; one carries one request at a time.
        templates: Requests, in turn.

    """

    def __init__(
        self,
        engine: Engine,
        nodes: Sequence[tuple[str, int]],
        connections: int,
        templates: Sequence[Template],
    ) -> None:
        self._engine = engine
        self._templates = templates
        self._queues: list[deque[tuple[int, int]]] = [deque() for _ in nodes]
        self._idle: list[list[_Connection]] = [
            [_Connection(self, engine, address, node) for _ in range(connections)]
            for node, address in enumerate(nodes)
        ]
        self._connections = [one for those in self._idle for one in those]
        self.sent = 0
        self.answered = 0
        self.statuses: Counter[str] = Counter()
        self.duration_us = array("I")
        self.lag_us = array("I")
        """Time from the due time of a request until it was sent."""
        self.failed: str | None = None
        self.refusal = b""
        """The beginning of the first response that was neither 2xx nor 3xx."""

    def submit(self, due_ns: int) -> None:
        """Send the next request, now or as soon as a connection is free."""
        number = self.sent
        self.sent += 1
        node = number % len(self._idle)
        if self._idle[node]:
            self._send(self._idle[node].pop(), number, due_ns)
        else:
            self._queues[node].append((number, due_ns))

    @property
    def idle(self) -> int:
        """The number of connections that carry nothing to the next node in turn."""
        return len(self._idle[self.sent % len(self._idle)])

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _send(self, connection: _Connection, number: int, due_ns: int) -> None:
        template = self._templates[number % len(self._templates)]
        self.lag_us.append(max(0, time.monotonic_ns() - due_ns) // 1000)
        connection.send(template.render(number, due_ns), due_ns)

    def on_answer(self, connection: _Connection, status: bytes, due_ns: int) -> None:
        self.answered += 1
        self.statuses[status.decode()] += 1
        self.duration_us.append((time.monotonic_ns() - due_ns) // 1000)
        if queue := self._queues[connection.node]:
            self._send(connection, *queue.popleft())
        else:
            self._idle[connection.node].append(connection)

    def on_lost(self, why: str) -> None:
        self.failed = why


class _Connection:
    """
    A persistent connection, opened when it is needed.

    A server may close it while it is idle, as most do after some seconds.
    """

    def __init__(
        self, sender: Sender, engine: Engine, address: tuple[str, int], node: int
    ) -> None:
        self.node = node
        """The number of the server."""
        self._sender = sender
        self._engine = engine
        self._address = address
        self._sock: socket.socket | None = None
        self._waiting = False
        self._due_ns = 0
        self._data = b""

    def send(self, request: bytes, due_ns: int) -> None:
        self._due_ns = due_ns
        self._waiting = True
        try:
            if self._sock is None:
                self._connect()
            assert self._sock is not None
            self._sock.sendall(request)
        except OSError as exc:
            self._sender.on_lost(str(exc))

    def close(self) -> None:
        if self._sock is not None:
            self._engine.remove(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _connect(self) -> None:
        self._sock = socket.create_connection(self._address, timeout=10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine.add(self._sock.fileno(), IN, self._on_readable)

    def _on_readable(self) -> None:
        assert self._sock is not None
        try:
            chunk = self._sock.recv(262_144)
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            if self._waiting:
                self._sender.on_lost("the server closed a connection")
            return
        self._data = data = self._data + chunk if self._data else chunk
        status = data[9:12]
        if is_whole(data):
            self._data = b""
            self._waiting = False
            if status[:1] not in b"23" and not self._sender.refusal:
                self._sender.refusal = data[:REFUSAL_BYTES]
            self._sender.on_answer(self, status, self._due_ns)


def is_whole(data: bytes) -> bool:
    """Whether `data` is a whole response, by its length or its last chunk."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    body = head + 4
    if data[9:12] in _BODILESS:
        return True
    if length := _LENGTH.search(data, 0, head):
        return len(data) >= body + int(length[1])
    if not _CHUNKED.search(data, 0, head):
        return True
    at = body
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if not size:
            return len(data) >= at
    return False


def send_by_timetable(
    engine: Engine,
    sender: Sender,
    *,
    rate: float,
    count: int,
    done: Callable[[], bool],
    grace_s: float,
    on_turn: Callable[[], None],
) -> bool:
    """
    Send `count` requests at `rate` per second, whatever their responses are.

    Returns whether `done` was reached within `grace_s` after the last due time.
    """
    started_ns = time.monotonic_ns() + 20_000_000
    step_ns = 1e9 / rate

    def turn() -> None:
        now_ns = time.monotonic_ns()
        while sender.sent < count:
            due_ns = started_ns + int(sender.sent * step_ns)
            if due_ns > now_ns:
                engine.set_alarm(due_ns)
                break
            sender.submit(due_ns)
        on_turn()

    turn()
    until_ns = started_ns + int((count / rate + grace_s) * 1e9)
    return engine.run(
        lambda: sender.failed is not None or (sender.sent >= count and done()),
        until_ns=until_ns,
        on_turn=turn,
    )


def send_in_windows(
    engine: Engine,
    sender: Sender,
    *,
    window: int,
    seconds: float,
    count: int,
    finished: Callable[[], int],
    on_turn: Callable[[], None],
) -> bool:
    """
    Keep `window` requests unfinished, for a time or a number of requests.

    `finished` returns how many are finished. Returns whether all were in the end.
    """
    started_ns = time.monotonic_ns()
    stop_ns = started_ns + int(seconds * 1e9)

    def turn() -> None:
        now_ns = time.monotonic_ns()
        while (
            now_ns < stop_ns
            and sender.sent < count
            and sender.idle
            and sender.sent - finished() < window
        ):
            sender.submit(now_ns)
        on_turn()

    def done() -> bool:
        ended = sender.sent >= count or time.monotonic_ns() >= stop_ns
        return sender.failed is not None or (ended and finished() >= sender.sent)

    turn()
    return engine.run(done, until_ns=stop_ns + 10_000_000_000, on_turn=turn)

"""
Readers: connections that count the messages they receive.

Decides when a connection counts as open and what a delivery is. Knows the mark of
messages, the handshake's status line, and pings, which it answers. These readers only
count; resuming ones (`resuming`) read every message.
"""

from __future__ import annotations

import socket
import struct
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .engine import IN, OUT, Engine

__all__ = ["MARK", "OpenPlan", "OpenResult", "Readers", "Received", "reset"]

MARK = 0x23  # "#"
STAMP_DIGITS = 19
BUFFER_BYTES = 262_144
HANDSHAKE_S = 60.0
"""A handshake without a response for so long has failed; not a busy machine alone."""
PING = 0x89

_buffer = bytearray(BUFFER_BYTES)
_view = memoryview(_buffer)


class OpenPlan(NamedTuple):
    """
    Connections to open.

    Args:
        address: The server.
        requests: One request per connection, or a single one for all.
        connections: Number of connections.
        ready: Bytes that a connection has to receive before it counts as open.
        in_flight: Handshakes in flight at a time.
        sources: Number of source addresses, from 127.0.0.0/8; each has 28,000 ports.
        sampled: Every n-th connection records latencies; 0 means none.
        others: Further nodes, which get connections in turn with the first.
        per_s: Handshakes that begin per second; 0 means as soon as one may.
        within_s: How long it may take; 0 means half a minute, and 5 ms for each.

    """

    address: tuple[str, int]
    requests: list[bytes]
    connections: int
    ready: bytes = b""
    in_flight: int = 64
    sources: int = 1
    sampled: int = 1
    others: Sequence[tuple[str, int]] = ()
    per_s: float = 0
    within_s: float = 0


class OpenResult(NamedTuple):
    """The result of a plan. Durations are from connecting to ready."""

    open: int
    refused: dict[str, int]
    seconds: float
    duration_us: array[int]


class Received:
    """What all readers have received so far."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.closed = 0
        self.latency_ns = array("q")


class Readers:
    """Open connections of one process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.received = Received()
        self.sockets: list[socket.socket] = []

    def open(self, plan: OpenPlan, on_turn: Callable[[int], None]) -> OpenResult:
        """Open the connections of `plan`; pass their number to `on_turn` meanwhile."""
        handshakes = _Handshakes(self, plan)
        started_ns = time.monotonic_ns()
        within_s = plan.within_s or 30 + plan.connections / 200
        until_ns = started_ns + int(within_s * 1e9)
        handshakes.fill()

        def proceed() -> None:
            handshakes.fill()
            on_turn(handshakes.open)

        self.engine.run(lambda: handshakes.done, until_ns=until_ns, on_turn=proceed)
        seconds = (time.monotonic_ns() - started_ns) / 1e9
        handshakes.give_up()
        return OpenResult(
            handshakes.open, dict(handshakes.refused), seconds, handshakes.duration_us
        )

    def adopt(self, sock: socket.socket, *, sampled: bool) -> None:
        """Count the messages on an open connection."""
        self.sockets.append(sock)
        make = self._sampling_callback if sampled else self._counting_callback
        self.engine.change(sock.fileno(), IN, make(sock))

    def close(self) -> None:
        """Reset all connections at once, as a network failure does."""
        for sock in self.sockets:
            self.engine.remove(sock.fileno())
            reset(sock)
        self.sockets.clear()

    def _counting_callback(self, sock: socket.socket) -> Callable[[], None]:
        recv_into, count, find = sock.recv_into, _buffer.count, _buffer.find
        received = self.received

        def on_readable() -> None:
            try:
                size = recv_into(_buffer)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if not size:
                self._lost(sock)
                return
            received.messages += count(MARK, 0, size)
            received.bytes += size
            # Servers send nothing else that contains this byte but lengths.
            if find(PING, 0, size) >= 0:
                received.messages -= _answer_pings(sock, size)

        return on_readable

    def _sampling_callback(self, sock: socket.socket) -> Callable[[], None]:
        received = self.received
        rest = b""

        def on_readable() -> None:
            nonlocal rest
            try:
                size = sock.recv_into(_buffer)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            now_ns = time.monotonic_ns()
            if not size:
                self._lost(sock)
                return
            received.messages += _buffer.count(MARK, 0, size)
            received.bytes += size
            if _buffer.find(PING, 0, size) >= 0:
                received.messages -= _answer_pings(sock, size)
            data = rest + _buffer[:size]
            rest = b""
            at = data.find(MARK)
            while at >= 0:
                stamp = data[at + 1 : at + 1 + STAMP_DIGITS]
                if len(stamp) < STAMP_DIGITS:
                    rest = bytes(data[at:])
                    return
                if stamp.isdigit():
                    received.latency_ns.append(now_ns - int(stamp))
                at = data.find(MARK, at + 1)

        return on_readable

    def _lost(self, sock: socket.socket) -> None:
        self.received.closed += 1
        self.engine.remove(sock.fileno())
        sock.close()


class _Handshakes:
    """The handshakes of a plan, of which a limited number is in flight."""

    def __init__(self, readers: Readers, plan: OpenPlan) -> None:
        self._readers = readers
        self._plan = plan
        self._nodes = (plan.address, *plan.others)
        self._began_ns = time.monotonic_ns()
        self._started = 0
        self._pending: dict[socket.socket, tuple[int, bytes]] = {}
        self._oldest: deque[tuple[int, socket.socket]] = deque()
        self.open = 0
        self.refused: Counter[str] = Counter()
        self.duration_us = array("I")

    @property
    def done(self) -> bool:
        return self._started == self._plan.connections and not self._pending

    def fill(self) -> None:
        """Begin handshakes until the limit is in flight, or the next is not due."""
        plan = self._plan
        self._expire()
        while self._started < plan.connections and len(self._pending) < plan.in_flight:
            if plan.per_s:
                due_ns = self._began_ns + int(self._started / plan.per_s * 1e9)
                if due_ns > time.monotonic_ns():
                    self._readers.engine.set_alarm(due_ns)
                    return
            self._begin(self._started)
            self._started += 1

    def give_up(self) -> None:
        for sock in list(self._pending):
            self._refuse(sock, "no answer")

    def _expire(self) -> None:
        limit_ns = time.monotonic_ns() - int(HANDSHAKE_S * 1e9)
        while self._oldest and self._oldest[0][0] < limit_ns:
            sock = self._oldest.popleft()[1]
            if sock in self._pending:
                self._refuse(sock, "no answer")

    def _begin(self, number: int) -> None:
        plan = self._plan
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if plan.sources > 1:
            sock.bind((f"127.0.0.{1 + number % plan.sources}", 0))
        now_ns = time.monotonic_ns()
        self._pending[sock] = (now_ns, b"")
        self._oldest.append((now_ns, sock))
        request = plan.requests[number % len(plan.requests)]
        sock.connect_ex(self._nodes[number % len(self._nodes)])
        self._readers.engine.add(
            sock.fileno(), OUT, lambda: self._on_connected(sock, request, number)
        )

    def _on_connected(self, sock: socket.socket, request: bytes, number: int) -> None:
        try:
            sock.send(request)
        except OSError as exc:
            self._refuse(sock, exc.strerror or "refused")
            return
        self._readers.engine.change(
            sock.fileno(), IN, lambda: self._on_answer(sock, number)
        )

    def _on_answer(self, sock: socket.socket, number: int) -> None:
        started_ns, before = self._pending[sock]
        try:
            data = before + sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError as exc:
            self._refuse(sock, exc.strerror or "reset")
            return
        status = data[9:12]
        if len(data) == len(before):
            self._refuse(sock, status.decode() or "closed")
        elif b"\r\n\r\n" not in data or self._plan.ready not in data:
            self._pending[sock] = (started_ns, data)
            if len(status) == 3 and status not in (b"101", b"200"):
                self._refuse(sock, status.decode())
        elif status in (b"101", b"200"):
            del self._pending[sock]
            self.open += 1
            self.duration_us.append((time.monotonic_ns() - started_ns) // 1000)
            sampled = self._plan.sampled
            self._readers.adopt(sock, sampled=sampled > 0 and number % sampled == 0)
        else:
            self._refuse(sock, status.decode())

    def _refuse(self, sock: socket.socket, why: str) -> None:
        del self._pending[sock]
        self.refused[why] += 1
        self._readers.engine.remove(sock.fileno())
        sock.close()


def reset(sock: socket.socket) -> None:
    """Close with a reset, which leaves no port in TIME_WAIT."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    except OSError:
        pass


def _answer_pings(sock: socket.socket, size: int) -> int:
    """
    Walk the frames in the buffer and answer the pings among them.

    Returns the number of marks in pings: some servers send pings with random payload.
    """
    at = 0
    marks = 0
    while at + 2 <= size and _buffer[at] in (0x81, PING):
        length, head = _buffer[at + 1], 2
        if length == 126:
            length, head = int.from_bytes(_view[at + 2 : at + 4], "big"), 4
        if _buffer[at] == PING:
            payload = bytes(_view[at + 2 : at + 2 + length])
            marks += payload.count(MARK)
            frame = struct.pack("!BB4s", 0x8A, 0x80 | length, b"\0\0\0\0") + payload
            try:
                sock.send(frame)
            except OSError:
                return marks
        at += head + length
    return marks

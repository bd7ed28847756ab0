"""
Resuming readers: they read every message, keep their position and count losses.

Decides, as the protocol requires of clients, when a disconnected reader reconnects and
from which position. Knows WebSocket frames; where a message tells a position, and what
tells a gap, the plan says. The text of a notification is ``#``, 19 digits of time, a
dot and the number of the publication, which increases by one for each player.
"""

from __future__ import annotations

import heapq
import random
import re
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .engine import IN, OUT, Engine
from .readers import reset

__all__ = ["UNLIMITED", "Dialect", "ResumingPlan", "ResumingReaders"]

_NUMBER = re.compile(rb"#\d{19}\.(\d{10})")
_RETRY_AFTER = re.compile(rb"\r\n[Rr]etry-[Aa]fter: *(\d+)")
UNLIMITED = 1_000_000_000

OPEN_S = 10.0
"""How long a client waits for the response to its handshake."""

_BACK_OFF_S = (0.5, 20.0)


class Dialect(NamedTuple):
    """
    How a server tells the position that a reader resumes from.

    Args:
        opened: What the first message of a stream contains.
        position: Placeholders in a request, and for each the pattern of its value in
            messages. The last value that a message has counts.
        gap: What a message contains that says that some are missing.

    """

    opened: bytes
    position: dict[bytes, bytes]
    gap: bytes


class ResumingPlan(NamedTuple):
    """
    The connections of resuming readers.

    Args:
        address: The server.
        dialect: The positions in what it sends.
        firsts: The first request of each reader.
        resumes: Each one's further requests, with placeholders for the position.
        in_flight: Handshakes in flight at a time; the default makes a storm.

    """

    address: tuple[str, int]
    dialect: Dialect
    firsts: Sequence[bytes]
    resumes: Sequence[bytes]
    in_flight: int = UNLIMITED


class _Reader:
    __slots__ = (
        "attempts",
        "data",
        "incomplete",
        "last",
        "open",
        "position",
        "sock",
        "started_ns",
    )

    def __init__(self) -> None:
        self.position: dict[bytes, bytes] = {}
        self.last = -1
        self.attempts = 0
        self.started_ns = 0
        self.open = False
        self.incomplete = False
        self.data = b""
        self.sock: socket.socket | None = None


class ResumingReaders:
    """The readers of one process."""

    def __init__(self, engine: Engine, plan: ResumingPlan) -> None:
        self._engine = engine
        self._plan = plan
        self.in_flight = plan.in_flight
        """Handshakes that may be in flight at a time."""
        self._patterns = [
            (name, re.compile(pattern))
            for name, pattern in plan.dialect.position.items()
        ]
        self._readers = [_Reader() for _ in plan.firsts]
        self._due: list[tuple[int, int]] = []
        self._pending = 0
        self._opening: deque[tuple[int, int]] = deque()
        self._expected = -1
        self._started_ns = 0
        self.incomplete = 0
        self.open = 0
        self.lost = 0
        self.doubled = 0
        self.gaps = 0
        self.messages = 0
        self.refused: Counter[str] = Counter()
        self.duration_us = array("I")
        """From the start of `connect_all` to the last message, per reader."""

    def connect_all(
        self,
        expected: int,
        *,
        spread_s: float,
        within_s: float,
        on_turn: Callable[[], None],
    ) -> bool:
        """
        Connect all disconnected readers; wait until all have `expected` messages.

        Args:
            expected: The number of publications so far.
            spread_s: The first attempt is made at a random time within it.
            within_s: Timeout.
            on_turn: Called now and then.

        Returns whether all readers are complete.
        """
        self._expect(expected)
        now_ns = time.monotonic_ns()
        for number, reader in enumerate(self._readers):
            if reader.sock is None:
                reader.attempts = 0
                self._plan_attempt(number, random.uniform(0, spread_s))
        self._connect_due()

        def proceed() -> None:
            self._connect_due()
            on_turn()

        return self._engine.run(
            lambda: not self.incomplete and self.open == len(self._readers),
            until_ns=now_ns + int(within_s * 1e9),
            on_turn=proceed,
        )

    def drop(self) -> None:
        """Reset all connections at once."""
        for reader in self._readers:
            if reader.sock is not None:
                self._engine.remove(reader.sock.fileno())
                reset(reader.sock)
            reader.sock, reader.open, reader.data = None, False, b""
        self.open = 0
        self._pending = 0

    def facts(self) -> dict[str, object]:
        """Return the counts since the start."""
        return {
            "open": self.open,
            "incomplete": self.incomplete,
            "lost": self.lost,
            "doubled": self.doubled,
            "gaps": self.gaps,
            "messages": self.messages,
            "refused": dict(self.refused),
        }

    def _expect(self, expected: int) -> None:
        self._expected = expected - 1
        self._started_ns = time.monotonic_ns()
        self.duration_us = array("I")
        self.incomplete = 0
        for reader in self._readers:
            reader.incomplete = reader.sock is None or reader.last < self._expected
            self.incomplete += reader.incomplete

    def _plan_attempt(self, number: int, delay_s: float) -> None:
        at_ns = time.monotonic_ns() + int(delay_s * 1e9)
        heapq.heappush(self._due, (at_ns, number))

    def _connect_due(self) -> None:
        now_ns = time.monotonic_ns()
        self._give_up_before(now_ns - int(OPEN_S * 1e9))
        # A bounded number at a time, so that open connections are read in between.
        for _ in range(200):
            if not self._due or self._pending >= self.in_flight:
                return
            if self._due[0][0] > now_ns:
                break
            self._connect(heapq.heappop(self._due)[1])
        if self._due:
            self._engine.set_alarm(self._due[0][0])

    def _give_up_before(self, limit_ns: int) -> None:
        while self._opening and self._opening[0][0] < limit_ns:
            started_ns, number = self._opening.popleft()
            reader = self._readers[number]
            waits = reader.sock is not None and not reader.open
            if waits and reader.started_ns == started_ns:
                self._on_refused(number, f"no answer within {OPEN_S:g} s", 0)

    def _connect(self, number: int) -> None:
        reader = self._readers[number]
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        reader.sock, reader.data = sock, b""
        self._pending += 1
        reader.started_ns = time.monotonic_ns()
        self._opening.append((reader.started_ns, number))
        sock.connect_ex(self._plan.address)
        self._engine.add(sock.fileno(), OUT, lambda: self._on_connected(number))

    def _on_connected(self, number: int) -> None:
        reader = self._readers[number]
        assert reader.sock is not None
        plan = self._plan
        request = plan.resumes[number] if reader.position else plan.firsts[number]
        for name, value in reader.position.items():
            request = request.replace(name, value)
        try:
            reader.sock.send(request)
        except OSError as exc:
            self._on_refused(number, exc.strerror or "refused", 0)
            return
        self._engine.change(
            reader.sock.fileno(), IN, lambda: self._on_readable(number, reader)
        )

    def _on_readable(self, number: int, reader: _Reader) -> None:
        assert reader.sock is not None
        try:
            chunk = reader.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._on_refused(number, "lost" if reader.open else "closed", 0)
            return
        reader.data += chunk
        if not reader.open and not self._read_response(number, reader):
            return
        self._read_frames(number, reader)

    def _read_response(self, number: int, reader: _Reader) -> bool:
        head, separator, rest = reader.data.partition(b"\r\n\r\n")
        if not separator:
            return False
        status = head[9:12].decode()
        if status != "101":
            retry_after = _RETRY_AFTER.search(head)
            self._on_refused(number, status, int(retry_after[1]) if retry_after else 0)
            return False
        reader.open, reader.data = True, rest
        self._pending -= 1
        self.open += 1
        return True

    def _on_refused(self, number: int, why: str, retry_after_s: int) -> None:
        reader = self._readers[number]
        assert reader.sock is not None
        self.refused[why] += 1
        self._engine.remove(reader.sock.fileno())
        reader.sock.close()
        reader.sock = None
        if reader.open:
            reader.open = False
            self.open -= 1
        else:
            self._pending -= 1
        low_s, high_s = _BACK_OFF_S
        wait_s = random.uniform(0, min(high_s, low_s * 2**reader.attempts))
        reader.attempts += 1
        self._plan_attempt(number, retry_after_s + wait_s)

    def _read_frames(self, number: int, reader: _Reader) -> None:
        data, at = reader.data, 0
        while at + 2 <= len(data):
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            end = at + head + length
            if end > len(data) or (head == 4 and at + 4 > len(data)):
                break
            if data[at] == 0x81:
                self._read_message(reader, data[at + head : end])
            elif data[at] == 0x89:
                pong = bytes([0x8A, 0x80 | length]) + b"\0\0\0\0"
                assert reader.sock is not None
                reader.sock.send(pong + data[at + head : end])
            at = end
        reader.data = data[at:]

    def _read_message(self, reader: _Reader, message: bytes) -> None:
        dialect = self._plan.dialect
        # One message may hold all replayed notifications.
        numbers = _NUMBER.findall(message)
        for number in numbers:
            self._count(reader, int(number))
        if dialect.gap in message:
            self.gaps += 1
        elif not numbers and dialect.opened not in message:
            return
        for name, pattern in self._patterns:
            if values := pattern.findall(message):
                reader.position[name] = values[-1]
        if reader.incomplete and reader.last >= self._expected:
            reader.incomplete = False
            self.incomplete -= 1
            self.duration_us.append((time.monotonic_ns() - self._started_ns) // 1000)

    def _count(self, reader: _Reader, number: int) -> None:
        self.messages += 1
        if number <= reader.last:
            self.doubled += 1
            return
        self.lost += number - reader.last - 1
        reader.last = number

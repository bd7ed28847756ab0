"""
What a process counts of itself: whole numbers that go up, and spreads of times.

Decides what is counted, and by which few words: every label is from a list that is
closed, never a player's name or an id. Knows nothing of who reads the figures, nor of
how they are written out: whoever has something to count is handed a `Counters`, or a
part of one, and adds to it, which is all that a count may cost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from ..errors import Disconnect
from ..model import Gap

__all__ = ["CLIENT_LEFT", "Counters", "Histogram", "TransportCounters"]

CLIENT_LEFT: Final = "left"
"""How a connection has ended that nobody here has ended."""

WRITE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""From what a store and a node take at best, to when a player would have noticed."""

LAG_S: Final = (0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3_600)
"""A scheduler looks four times a second; one that was down is late by more."""


class Histogram:
    """
    Numbers by size.

    Args:
        bounds: The greatest number of each bucket, rising; one without a bound follows.

    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a number; one below zero, of two clocks that differ, is zero."""
        value = max(value, 0.0)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class TransportCounters:
    """What one transport has carried: ``websocket``, ``sse``, or ``longpoll``."""

    __slots__ = ("closes", "deliveries", "gaps", "name", "opened")

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = 0
        self.closes: Counter[str] = Counter()
        """By reason; `CLIENT_LEFT` where the client, or the network, has ended it."""
        self.deliveries = 0
        """Entries given to connections, each counted once for each."""
        self.gaps: Counter[Gap] = Counter()

    @property
    def open(self) -> int:
        """Connections at this moment."""
        return self.opened - self.closes.total()

    def close(self, disconnect: Disconnect | None) -> None:
        """Count the end of a connection; None is that of a client that has left."""
        self.closes[CLIENT_LEFT if disconnect is None else disconnect.reason] += 1


class Counters:
    """Everything that one process has counted since it was started."""

    def __init__(self) -> None:
        self.websocket = TransportCounters("websocket")
        self.sse = TransportCounters("sse")
        self.longpoll = TransportCounters("longpoll")

        self.publishes: Counter[str] = Counter()
        """Publishes acknowledged: ``stored``, or ``replayed`` by their key."""
        self.entries_stored = 0
        """Entries that publishes have put into logs; what is scheduled is not in it."""
        self.publish_to_write_s = Histogram(WRITE_S)
        """From an entry's time to its being written, once for each that came live."""

        self.refusals: Counter[str] = Counter()
        """What was refused, by the name of the limit."""
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """Requests answered, by method, template of the route, and status."""

        self.probe_s = Histogram(WRITE_S)
        """From storing a probe to hearing it."""
        self.schedule_lag_s = Histogram(LAG_S)
        """How late schedules were fired."""

    def count_publish(self, entries: int) -> None:
        """Count a publish that is acknowledged, and how many entries it has stored."""
        self.publishes["stored" if entries else "replayed"] += 1
        self.entries_stored += entries

    @property
    def transports(self) -> tuple[TransportCounters, ...]:
        return (self.websocket, self.sse, self.longpoll)

    @property
    def deliveries(self) -> int:
        return self.websocket.deliveries + self.sse.deliveries

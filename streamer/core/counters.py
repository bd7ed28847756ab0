"""
The counters of one process, and histograms of durations.

Decides what is counted and with which labels. Every label has a fixed set of values; a
player's name or an id is never one. Knows nothing of how counters are exposed. Code
that counts gets a `Counters`, or a part of one, and adds to it: counting costs no more
than an addition.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from ..errors import Disconnect
from ..model import Gap

__all__ = ["CLIENT_LEFT", "Counters", "Histogram", "TransportCounters"]

CLIENT_LEFT: Final = "left"
"""Reason of a connection that the client or the network closed."""

WRITE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
"""From the fastest write of store and node to a delay that players notice."""

LAG_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3_600)
"""A scheduler wakes up within 20 ms; after an outage it is late by more."""


class Histogram:
    """
    A histogram of numbers.

    Args:
        bounds: The largest number of each bucket, ascending. A last bucket without a
            bound follows.

    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a number. A negative one, from clocks that differ, counts as zero."""
        value = max(value, 0.0)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


class TransportCounters:
    """Counters of one transport: ``websocket``, ``sse`` or ``longpoll``."""

    __slots__ = ("closes", "deliveries", "gaps", "name", "opened")

    def __init__(self, name: str) -> None:
        self.name = name
        self.opened = 0
        self.closes: Counter[str] = Counter()
        """By reason; `CLIENT_LEFT` if the client or the network closed it."""
        self.deliveries = 0
        """Entries written to connections, once per connection."""
        self.gaps: Counter[Gap] = Counter()

    @property
    def open(self) -> int:
        """The number of connections that are open now."""
        return self.opened - self.closes.total()

    def close(self, disconnect: Disconnect | None) -> None:
        """Count the end of a connection; None if the client left."""
        self.closes[CLIENT_LEFT if disconnect is None else disconnect.reason] += 1


class Counters:
    """All counters of one process since its start."""

    def __init__(self) -> None:
        self.websocket = TransportCounters("websocket")
        self.sse = TransportCounters("sse")
        self.longpoll = TransportCounters("longpoll")

        self.publishes: Counter[str] = Counter()
        """Publishes acknowledged: ``stored``, or ``replayed`` by idempotency key."""
        self.entries_stored = 0
        """Entries that publishes appended to logs, without those of schedules."""
        self.publish_to_write_s = Histogram(WRITE_S)
        """From an entry's time until it was written, once per live delivery."""

        self.refusals: Counter[str] = Counter()
        """Refusals, by the name of the limit."""
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """Responses, by method, template of the route, and status."""

        self.probe_s = Histogram(WRITE_S)
        """From storing a probe to receiving its announcement."""
        self.loop_lag_s = Histogram(WRITE_S)
        """How late the event loop was, measured ten times a second."""
        self.schedule_lag_s = Histogram(LAG_S)
        """The delay with which schedules were fired."""

    def count_publish(self, entries: int) -> None:
        """Count an acknowledged publish and the entries that it stored."""
        self.publishes["stored" if entries else "replayed"] += 1
        self.entries_stored += entries

    @property
    def transports(self) -> tuple[TransportCounters, ...]:
        return (self.websocket, self.sse, self.longpoll)

    @property
    def deliveries(self) -> int:
        return self.websocket.deliveries + self.sse.deliveries

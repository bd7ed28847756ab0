"""
Limits that one node keeps by itself: how many at once, and how many a second.

Decides whether one more may come in. Knows counts and the time it is given. Knows
nothing of what is counted, nor of listeners across nodes, which are leases in the
store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from ..errors import Limit, LimitReached

__all__ = ["RateLimiter", "Slots", "SlotsPerKey"]


class Slots:
    """At most `capacity` holders at once."""

    def __init__(
        self,
        capacity: int,
        limit: Limit,
        *,
        retry_after_s: int = 5,
        refusals: Counter[str] | None = None,
    ) -> None:
        self.capacity = capacity
        self.in_use = 0
        self._limit = limit
        self._retry_after_s = retry_after_s
        self._refusals = Counter() if refusals is None else refusals

    def acquire(self) -> None:
        """
        Take a slot; whoever does has to give it back, once.

        Raises:
            LimitReached: All slots are taken.

        """
        if self.in_use >= self.capacity:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit, retry_after_s=self._retry_after_s)
        self.in_use += 1

    def release(self) -> None:
        """Give back what was taken."""
        self.in_use -= 1


class SlotsPerKey:
    """At most `capacity` holders at once for each key."""

    def __init__(
        self, capacity: int, limit: Limit, *, refusals: Counter[str] | None = None
    ) -> None:
        self.capacity = capacity
        self._in_use: Counter[Hashable] = Counter()
        self._limit = limit
        self._refusals = Counter() if refusals is None else refusals

    def acquire(self, key: Hashable) -> None:
        """Take one of `key`'s slots; as `Slots.acquire`."""
        if self._in_use[key] >= self.capacity:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit)
        self._in_use[key] += 1

    def release(self, key: Hashable) -> None:
        """Give back what was taken."""
        self._in_use[key] -= 1
        if not self._in_use[key]:
            del self._in_use[key]


class RateLimiter:
    """
    At most `per_s` events a second, evenly, with bursts of up to `burst`.

    The generic cell rate algorithm: one number, the time at which the next event would
    be exactly on schedule. An event may come up to `burst` intervals ahead of it.
    """

    __slots__ = ("_burst_s", "_interval_s", "_next_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._interval_s = 1 / per_s
        self._burst_s = (burst - 1) * self._interval_s
        self._next_s = float("-inf")

    def allow(self, now_s: float) -> bool:
        """Count an event at `now_s`, a monotonic time, unless it is one too many."""
        if self._next_s - self._burst_s > now_s:
            return False
        self._next_s = max(self._next_s, now_s) + self._interval_s
        return True

"""
Limits that each node enforces by itself: concurrency and rate.

Decides whether one more is admitted. Knows counts, and the time that its caller passes.
Knows nothing of what is counted, nor of limits across nodes: those are leases in the
store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from ..errors import Limit, LimitReached

__all__ = ["RateLimiter", "Slots", "SlotsPerKey"]


class Slots:
    """A counting semaphore that refuses instead of waiting."""

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
        Take a slot; its holder releases it once.

        Raises:
            LimitReached: All slots are in use.

        """
        if self.in_use >= self.capacity:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit, retry_after_s=self._retry_after_s)
        self.in_use += 1

    def release(self) -> None:
        """Release an acquired slot."""
        self.in_use -= 1


class SlotsPerKey:
    """`Slots` of the same capacity for each key."""

    def __init__(
        self, capacity: int, limit: Limit, *, refusals: Counter[str] | None = None
    ) -> None:
        self.capacity = capacity
        self._in_use: dict[Hashable, int] = {}
        self._limit = limit
        self._refusals = Counter() if refusals is None else refusals

    def acquire(self, key: Hashable) -> None:
        """Take a slot of `key`; see `Slots.acquire`."""
        in_use = self._in_use.get(key, 0)
        if in_use >= self.capacity:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit)
        self._in_use[key] = in_use + 1

    def release(self, key: Hashable) -> None:
        """Release an acquired slot."""
        in_use = self._in_use.pop(key) - 1
        if in_use:
            self._in_use[key] = in_use


class RateLimiter:
    """
    Admits `per_s` events per second on average, in bursts of up to `burst`.

    It is the generic cell rate algorithm. Its only state is the time at which the next
    event would be exactly on schedule; an event may come up to `burst` intervals before
    that.
    """

    __slots__ = ("_burst_s", "_interval_s", "_next_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._interval_s = 1 / per_s
        self._burst_s = (burst - 1) * self._interval_s
        self._next_s = float("-inf")

    def allow(self, now_s: float) -> bool:
        """Return whether an event at `now_s`, a monotonic time, is within the rate."""
        if self._next_s - self._burst_s > now_s:
            return False
        self._next_s = max(self._next_s, now_s) + self._interval_s
        return True

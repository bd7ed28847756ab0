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
    """At most `most` holders at once."""

    def __init__(
        self,
        most: int,
        limit: Limit,
        *,
        retry_after_s: int = 5,
        refusals: Counter[str] | None = None,
    ) -> None:
        self.most = most
        self.taken = 0
        self._limit = limit
        self._retry_after_s = retry_after_s
        self._refusals = Counter() if refusals is None else refusals

    def take(self) -> None:
        """
        Take a slot; whoever does has to give it back, once.

        Raises:
            LimitReached: All slots are taken.

        """
        if self.taken >= self.most:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit, retry_after_s=self._retry_after_s)
        self.taken += 1

    def give_back(self) -> None:
        """Give back what was taken."""
        self.taken -= 1


class SlotsPerKey:
    """At most `most` holders at once for each key."""

    def __init__(
        self, most: int, limit: Limit, *, refusals: Counter[str] | None = None
    ) -> None:
        self.most = most
        self._taken: Counter[Hashable] = Counter()
        self._limit = limit
        self._refusals = Counter() if refusals is None else refusals

    def take(self, key: Hashable) -> None:
        """Take one of `key`'s slots; as `Slots.take`."""
        if self._taken[key] >= self.most:
            self._refusals[self._limit.name.lower()] += 1
            raise LimitReached(self._limit)
        self._taken[key] += 1

    def give_back(self, key: Hashable) -> None:
        """Give back what was taken."""
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


class RateLimiter:
    """
    At most `per_s` events a second, evenly, with bursts of up to `burst`.

    The generic cell rate algorithm: one number, the time at which the next event would
    be exactly on schedule. An event may come up to `burst` intervals ahead of it.
    """

    __slots__ = ("_ahead_s", "_interval_s", "_next_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._interval_s = 1 / per_s
        self._ahead_s = (burst - 1) * self._interval_s
        self._next_s = float("-inf")

    def allow(self, now_s: float) -> bool:
        """Count an event at `now_s`, a monotonic time, unless it is one too many."""
        if self._next_s - self._ahead_s > now_s:
            return False
        self._next_s = max(self._next_s, now_s) + self._interval_s
        return True

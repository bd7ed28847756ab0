"""
The last hour of this process, sampled, for the charts of the console.

Decides what a sample has and how many are kept. A sample has what happened since the
one before it, not totals: samples of several processes can be added, and a restart is
no negative number. Knows the counters and the store watch. Knows nothing of how samples
are shown.

An hour is `SAMPLES_MAX` samples of less than 1 KB, in memory only: a process that
starts has none, and nothing is written anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ...core.counters import Counters
from ...errors import SLOW
from .store_watch import StoreWatch

__all__ = ["INTERVAL_S", "SAMPLES_MAX", "LoadHistory", "Sample"]

INTERVAL_S: Final = 5.0

SAMPLES_MAX: Final = 720
"""One hour."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What happened in this process within `seconds` before `at_ms`.

    `connections` are those open at `at_ms`, by transport. `written` and `lag` are the
    counts of the buckets of a histogram, whose bounds `LoadHistory.bounds` names; empty
    where nothing was counted. `store` is the memory of the store in bytes, as of its
    last check.
    """

    at_ms: int
    seconds: float
    connections: dict[str, int] = {}
    deliveries: int = 0
    publishes: int = 0
    written: list[int] = []
    lag: list[int] = []
    refusals: dict[str, int] = {}
    slow: int = 0
    gaps: int = 0
    store: int = 0


class _Totals:
    """The counters at one time, of which samples are the differences."""

    def __init__(self, counters: Counters) -> None:
        transports = counters.transports
        self.deliveries = counters.deliveries
        self.publishes = sum(counters.publishes.values())
        self.written = list(counters.publish_to_write_s.counts)
        self.lag = list(counters.loop_lag_s.counts)
        self.refusals = Counter(counters.refusals)
        self.slow = sum(it.closes[SLOW.reason] for it in transports)
        self.gaps = sum(sum(it.gaps.values()) for it in transports)


class LoadHistory:
    """
    The samples of this process.

    Args:
        counters: The counters of this process.
        store_watch: Knows how much memory the store uses.
        clock: Unix time in seconds.
        monotonic: A monotonic clock in seconds.

    """

    def __init__(
        self,
        counters: Counters,
        store_watch: StoreWatch,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._store_watch = store_watch
        self._clock = clock
        self._monotonic = monotonic
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._before = _Totals(counters)
        self._before_s = monotonic()

    @property
    def bounds(self) -> Mapping[str, Sequence[float]]:
        """
        The largest number of seconds of each bucket but the last, by `Sample` member.
        """
        return {
            "written": self._counters.publish_to_write_s.bounds,
            "lag": self._counters.loop_lag_s.bounds,
        }

    async def run(self) -> None:
        """Take a sample every `INTERVAL_S` until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.take()

    def take(self) -> Sample:
        """Take a sample now, of the time since the last one. O(counters)."""
        before, now = self._before, _Totals(self._counters)
        before_s, now_s = self._before_s, self._monotonic()
        self._before, self._before_s = now, now_s
        sample = Sample(
            at_ms=int(self._clock() * 1_000),
            seconds=round(now_s - before_s, 3),
            connections={
                it.name: it.open for it in self._counters.transports if it.open
            },
            deliveries=now.deliveries - before.deliveries,
            publishes=now.publishes - before.publishes,
            written=_difference(now.written, before.written),
            lag=_difference(now.lag, before.lag),
            refusals=dict(now.refusals - before.refusals),
            slow=now.slow - before.slow,
            gaps=now.gaps - before.gaps,
            store=self._store_watch.memory_used,
        )
        self._samples.append(sample)
        return sample

    def since(self, at_ms: int) -> list[Sample]:
        """Return the samples that were taken after `at_ms`, oldest first."""
        return [sample for sample in self._samples if sample.at_ms > at_ms]


def _difference(now: Sequence[int], before: Sequence[int]) -> list[int]:
    counts = [later - earlier for later, earlier in zip(now, before, strict=True)]
    return counts if any(counts) else []

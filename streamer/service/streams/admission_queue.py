"""
So many at a time, first come, first served, and nobody who would wait in vain.

Decides whether a turn will come soon enough to be worth waiting for. Knows how many
wait, and how fast they have been getting their turns. Knows nothing of what is done in
a turn.

When more come than can be served before they give up, and all are let wait, each of
them is served too late: the work is done for somebody who has gone, and comes again.
So those who would wait too long are told at once when to come back, and those who have
waited for as long while they still listen.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from ...errors import Limit, LimitReached

__all__ = ["RETRY_AFTER_MAX_S", "AdmissionQueue"]

MEASURED_S: Final = 1.0
MEASURED_LATEST_S: Final = 5.0
MEASURED_MIN: Final = 32
"""How fast a queue moves is known after a second in which so many got their turn, or
else after five: a node that stood still for a moment is no slow one."""

RETRY_AFTER_MAX_S: Final = 30


class AdmissionQueue:
    """
    To be held as a block while something is done.

    Args:
        capacity: How many at a time.
        limit: What is reached when there are too many.
        wait_max_s: How long a wait is worth it.
        refusals: What counts who is refused.
        clock_s: Monotonic time.

    """

    def __init__(
        self,
        capacity: int,
        limit: Limit,
        *,
        wait_max_s: float,
        refusals: Counter[str] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._semaphore = asyncio.Semaphore(capacity)
        self._limit = limit
        self._wait_max_s = wait_max_s
        self._refusals = Counter() if refusals is None else refusals
        self._clock_s = clock_s
        self._waiting = 0
        self._served = 0
        self._since_s = 0.0
        self._served_per_s = 0.0
        """Turns that ended a second while others waited; 0 for not known."""

    def require_capacity(self) -> None:
        """
        Raise unless a turn would come soon, as far as one can tell.

        Raises:
            LimitReached: It would not; says when it is worth another try.

        """
        if self._expected_wait_s > self._wait_max_s:
            raise self._refusal()

    def discard_sample(self) -> None:
        """Say of a turn that it was of no use: who has left is no measure of a pace."""
        self._served -= 1

    async def __aenter__(self) -> bool:
        """
        Wait for a turn; return whether there was a wait.

        Raises:
            LimitReached: It has not come in time; says when it is worth another try.

        """
        if not self._waiting:
            # With nobody waiting, how many are served is how many come.
            self._begin_measuring()
            self._served_per_s = 0.0
        waits = self._semaphore.locked()
        self._waiting += 1
        try:
            if waits:
                async with asyncio.timeout(self._wait_max_s):
                    await self._semaphore.acquire()
            else:
                await self._semaphore.acquire()
        except TimeoutError:
            raise self._refusal() from None
        finally:
            self._waiting -= 1
        return waits

    async def __aexit__(self, *_: object) -> None:
        self._semaphore.release()
        self._served += 1
        measured_s = self._clock_s() - self._since_s
        enough_s = MEASURED_S if self._served >= MEASURED_MIN else MEASURED_LATEST_S
        if self._waiting and measured_s >= enough_s:
            self._served_per_s = self._served / measured_s
            self._begin_measuring()

    @property
    def _expected_wait_s(self) -> float:
        return self._waiting / self._served_per_s if self._served_per_s else 0.0

    def _refusal(self) -> LimitReached:
        self._refusals[self._limit.name.lower()] += 1
        retry_after_s = min(1 + math.floor(self._expected_wait_s), RETRY_AFTER_MAX_S)
        return LimitReached(self._limit, retry_after_s=retry_after_s)

    def _begin_measuring(self) -> None:
        self._served, self._since_s = 0, self._clock_s()

"""
A queue with a bounded number of holders and a bounded wait.

Decides whether a new arrival would be served soon enough to let it wait. Knows how many
wait, and how many are served per second. Knows nothing of the work of a holder.

If more arrive than can be served before they give up, and all of them may wait, each is
served too late: the work is done for a client that has left and tries again. So an
arrival that would wait too long is refused at once with the time to try again, and one
that has waited too long is refused while its client is still there.
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
"""
The rate of a queue is measured over a second in which at least this many were served,
otherwise over five seconds: a node that pauses for a moment is not slow.
"""

RETRY_AFTER_MAX_S: Final = 30


class AdmissionQueue:
    """
    An asynchronous context manager with at most `capacity` holders at a time.

    Args:
        capacity: The number of holders.
        limit: The limit that a refusal names.
        wait_max_s: The longest wait, in seconds.
        refusals: Counts refusals, by the limit's name.
        clock_s: Returns monotonic time.

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
        """The rate while others were waiting, 0 for unknown."""

    def require_capacity(self) -> None:
        """
        Raise if the expected wait is too long.

        Raises:
            LimitReached: It is; says after how many seconds to try again.

        """
        if self._expected_wait_s > self._wait_max_s:
            raise self._refusal()

    def discard_sample(self) -> None:
        """Do not count this holder: one whose client has left was not served."""
        self._served -= 1

    async def __aenter__(self) -> bool:
        """
        Become a holder; return whether that took a wait.

        Raises:
            LimitReached: The wait was too long; says after how many seconds to try
                again.

        """
        if not self._waiting:
            # While none waits, the rate is that of the arrivals.
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

"""
So many at a time, first come, first served, and nobody who would wait in vain.

Decides whether a turn will come soon enough to be worth waiting for. Knows how many
wait, and how fast they have been getting their turns. Knows nothing of what is done in
a turn.

When more come than can be served before they give up, and all are let wait, each of
them is served too late: the work is done for somebody who has gone, and comes again.
So those who would wait too long are told at once when to come back.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from ..errors import Limit, Refused

__all__ = ["RETRY_AFTER_MAX_S", "Turns"]

MEASURED_S: Final = 1.0
MEASURED_LATEST_S: Final = 5.0
MEASURED_MIN: Final = 32
"""How fast a queue moves is known after a second in which so many got their turn, or
else after five: a node that stood still for a moment is no slow one."""

RETRY_AFTER_MAX_S: Final = 30


class Turns:
    """
    To be held as a block while something is done.

    Args:
        most: How many at a time.
        limit: What is reached when there are too many.
        wait_max_s: How long a wait is worth it.
        clock_s: Monotonic time.

    """

    def __init__(
        self,
        most: int,
        limit: Limit,
        *,
        wait_max_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._free = asyncio.Semaphore(most)
        self._limit = limit
        self._wait_max_s = wait_max_s
        self._clock_s = clock_s
        self._waiting = 0
        self._ended = 0
        self._since_s = 0.0
        self._per_s = 0.0
        """Turns that ended a second while others waited; 0 for not known."""

    def require_soon(self) -> None:
        """
        Raise unless a turn would come soon, as far as one can tell.

        Raises:
            Refused: It would not; says when it is worth another try.

        """
        wait_s = self._waiting / self._per_s if self._per_s else 0.0
        if wait_s > self._wait_max_s:
            retry_after_s = min(math.ceil(wait_s), RETRY_AFTER_MAX_S)
            raise Refused(self._limit, retry_after_s=retry_after_s)

    async def __aenter__(self) -> None:
        if not self._waiting:
            # With nobody waiting, how many are served is how many come.
            self._begin_measuring()
            self._per_s = 0.0
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._free.release()
        self._ended += 1
        took_s = self._clock_s() - self._since_s
        enough_s = MEASURED_S if self._ended >= MEASURED_MIN else MEASURED_LATEST_S
        if self._waiting and took_s >= enough_s:
            self._per_s = self._ended / took_s
            self._begin_measuring()

    def _begin_measuring(self) -> None:
        self._ended, self._since_s = 0, self._clock_s()

"""
Rates that all nodes keep together.

Decides whether an app may call an operation once more. Knows a script and the store's
clock. Knows nothing of what is called.

A window that slides rather than a bucket that fills: thirty calls a second are then
thirty in any second, and whoever makes the thirty-first is told when to come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...errors import RateLimited
from ...model import App
from ..client.connection import RedisConnection, Script
from ..keys import rate_key

__all__ = ["Rates"]

WINDOW_MS: Final = 1_000

_RATE: Final = Script("rate")


class Rates:
    """
    Calls let through, by app and operation.

    Args:
        redis: The way to the store.
        clock_ms: Gives the time to use; 0 means the store's own.

    """

    def __init__(
        self, redis: RedisConnection, *, clock_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._redis = redis
        self._clock_ms = clock_ms

    async def count(self, app: App, operation: str, *, per_s: int) -> None:
        """
        Count a call of an operation. O(1).

        Raises:
            RateLimited: There were `per_s` calls within the last second.
            StoreUnavailable: It cannot be counted.

        """
        wait_ms: int = await self._redis.run(
            _RATE,
            (rate_key(app, operation),),
            (self._clock_ms(), per_s, WINDOW_MS),
            # A call that was counted for nothing does no harm.
            write=False,
        )
        if wait_ms:
            raise RateLimited(per_s, retry_after_s=-(-wait_ms // 1000))

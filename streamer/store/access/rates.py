"""
Rate limits that all nodes share.

Decides whether an app may call an operation now. Knows a script and the store's clock.
Knows nothing of the operations.

The limit is a sliding window and not a token bucket: 30 calls a second then means 30 in
any second, and the 31st call gets the exact time at which it may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...errors import RateLimited
from ...model import App
from ..client.connection import RedisConnection, Script

__all__ = ["Rates"]

WINDOW_MS: Final = 1_000

# One small key for each app: a full store can afford it. Without it, what a full store
# accepts would be refused, a cancellation for example.
_RATE: Final = Script("rate", includes=("_whole",), allow_oom=True)


class Rates:
    """
    The admitted calls, by app and operation.

    Args:
        redis: The connection to the store.
        clock_ms: Returns the time to use; 0 stands for the store's own clock.

    """

    def __init__(
        self, redis: RedisConnection, *, clock_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._clock_ms = clock_ms

    async def count(self, app: App, operation: str, *, per_s: int) -> None:
        """
        Count a call of an operation. O(1).

        Raises:
            RateLimited: `per_s` calls were admitted within the last second.
            StoreUnavailable: The call cannot be counted.

        """
        self._redis.terms.require_writable()
        wait_ms: int = await self._redis.run(
            _RATE,
            (self._keys.rate(app, operation),),
            (self._clock_ms(), per_s, WINDOW_MS),
            # A call that is counted and then not made does no harm.
            write=False,
        )
        if wait_ms:
            raise RateLimited(per_s, retry_after_s=-(-wait_ms // 1000))

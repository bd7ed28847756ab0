"""
When backend keys were last used, to the minute.

Decides how often uses are stored: not with each request, but once a minute for all keys
together. So a key's last use is known within `INTERVAL_S`, and a node that is killed
loses the uses of its last minute. Knows digests and times. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from ...store.access.apps import Apps
from ...store.client.faults import STORE_FAILURES, StoreFaults

__all__ = ["INTERVAL_S", "KeyUses"]

INTERVAL_S: Final = 60.0

PART: Final = "key uses"
"""The name of this part in `StoreFaults`."""

LAST_S: Final = 1.0
"""How long a node that stops waits for its last uses to be stored."""


class KeyUses:
    """
    Collects the uses of keys on this node, and stores them.

    Args:
        apps: The keys in the store.
        clock: Unix time in seconds.
        interval_s: The time between two writes.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        apps: Apps,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = INTERVAL_S,
        faults: StoreFaults | None = None,
    ) -> None:
        self._apps = apps
        self._clock = clock
        self._interval_s = interval_s
        self._faults = faults or StoreFaults()
        # No more than there are keys: only those that exist are noted.
        self._used_ms: dict[bytes, int] = {}

    def note(self, digest: bytes) -> None:
        """Note that the key with this digest has authenticated a request now."""
        self._used_ms[digest] = int(self._clock() * 1_000)

    async def run(self) -> None:
        """Store the uses periodically until cancelled, and once more then."""
        attempts = self._faults.attempts(PART)
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                async with attempts:
                    await self.store()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, *STORE_FAILURES):
                async with asyncio.timeout(LAST_S):
                    await self.store()
            raise

    async def store(self) -> None:
        """
        Store the uses that were noted since the last call.

        Raises:
            Unavailable: The store is unavailable. The next call stores them.

        """
        if not self._used_ms:
            return
        used_ms, self._used_ms = self._used_ms, {}
        try:
            await self._apps.note_uses(used_ms)
        except BaseException:
            # A use that was noted meanwhile is the later one.
            self._used_ms = used_ms | self._used_ms
            raise

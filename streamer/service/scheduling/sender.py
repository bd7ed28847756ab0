"""
Delivery of a schedule to its list of recipients.

Decides the size of portions, and when each bucket of a spread audience is served. Knows
recipients. Knows nothing of when a schedule is due: it is being sent already.

Every step is one atomic script, and none depends on which scheduler executed the one
before. So several schedulers may serve one audience concurrently, and another one
continues where a killed one stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from ...core.schedule import Schedule, bucket_starts_ms
from ...store.scheduling.recipients import Recipients

__all__ = ["BATCH", "Sender", "run_all"]

BATCH: Final = 100
"""Schedules fired, or recipients served, in one step, which blocks the store for about
a millisecond. A thousand would block it for seven."""

BUCKETS_CONCURRENT: Final = 4
"""Buckets served concurrently. Most of a step is waiting for the store to sync."""

TIME_SLICE_S: Final = 0.2
"""The longest time for which one audience delays the next, whatever its size."""


class Sender:
    """
    Serves audiences.

    Args:
        recipients: The recipients in the store.

    """

    def __init__(self, recipients: Recipients) -> None:
        self._recipients = recipients

    async def send(
        self, schedule: Schedule, now_ms: int, *, for_s: float = TIME_SLICE_S
    ) -> bool:
        """
        Serve the buckets of an audience that have started, for about `for_s` seconds.

        Returns whether recipients of these buckets are left.

        Raises:
            Unavailable: Some recipients were not served; another call continues.

        """
        served = await self._recipients.served_buckets(schedule)
        ready = [
            bucket
            for nth, bucket in enumerate(schedule.buckets)
            if bucket not in served and bucket_starts_ms(schedule, nth) <= now_ms
        ]
        # Keeps concurrent schedulers from serving the same buckets.
        random.shuffle(ready)
        if schedule.campaign:
            ready = await self._enlist(schedule, ready)
        until_s = asyncio.get_running_loop().time() + for_s
        return await run_all(
            self._serve(schedule, ready[i::BUCKETS_CONCURRENT], until_s)
            for i in range(BUCKETS_CONCURRENT)
        )

    async def _enlist(self, schedule: Schedule, buckets: Sequence[int]) -> list[int]:
        """Enlist the players with active cards; return the buckets that have some."""
        counts = await self._recipients.enlist_cards(schedule, buckets)
        empty = {bucket: 0 for bucket in buckets if not counts[bucket]}
        await self._recipients.finish(schedule, empty)
        return [bucket for bucket in buckets if bucket not in empty]

    async def _serve(
        self, schedule: Schedule, buckets: Sequence[int], until_s: float
    ) -> bool:
        for bucket in buckets:
            if await self._serve_bucket(schedule, bucket, until_s):
                return True
        return False

    async def _serve_bucket(
        self, schedule: Schedule, bucket: int, until_s: float
    ) -> bool:
        """Serve the recipients of a bucket; return whether the time was too short."""
        while asyncio.get_running_loop().time() < until_s:
            players, count = await self._recipients.next_players(
                schedule, bucket, limit=BATCH
            )
            if players:
                await self._recipients.deliver(schedule, bucket, players)
                continue
            # Without a count the store has lost the list of recipients.
            await self._recipients.finish(schedule, {bucket: count or 0})
            return False
        return True


async def run_all(coroutines: Iterable[Coroutine[Any, Any, bool]]) -> bool:
    """Wait for all; raise the first failure, or return whether any returned true."""
    # Not a task group, which would wrap the failure in an exception group.
    outcomes = await asyncio.gather(*coroutines, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return any(outcomes)

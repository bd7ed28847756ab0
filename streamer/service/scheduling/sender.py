"""
Serving an audience: from a list of recipients to their inboxes.

Decides in what portions, and when each part of a spread audience has its turn. Knows
its recipients. Knows nothing of when a schedule is due: it is being sent already.

Every step is one script that either happened or did not, and none depends on who did
the one before. So any number may serve one audience at once, and whoever is killed is
followed by another who goes on at the place where it stopped.
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
"""Schedules fired, or recipients served, in one step: about a millisecond of the store.
A thousand would hold everybody else up for seven."""

BUCKETS_CONCURRENT: Final = 4
"""Buckets served at once. Most of a step is waiting for the store to sync."""

TIME_SLICE_S: Final = 0.2
"""An audience has the others wait no longer than this, be it as large as it may."""


class Sender:
    """
    Serves audiences.

    Args:
        recipients: Where they wait.

    """

    def __init__(self, recipients: Recipients) -> None:
        self._recipients = recipients

    async def send(
        self, schedule: Schedule, now_ms: int, *, for_s: float = TIME_SLICE_S
    ) -> bool:
        """
        Serve of an audience what may be served at this time, for about `for_s`.

        Returns whether there is more to do at once.

        Raises:
            Unavailable: Some of it is not served; doing it again goes on from there.

        """
        served = await self._recipients.served_buckets(schedule)
        ready = [
            bucket
            for nth, bucket in enumerate(schedule.buckets)
            if bucket not in served and bucket_starts_ms(schedule, nth) <= now_ms
        ]
        # Several schedulers at work on one audience shall not meet at every step.
        random.shuffle(ready)
        if schedule.campaign:
            ready = await self._enlist(schedule, ready)
        until_s = asyncio.get_running_loop().time() + for_s
        return await run_all(
            self._serve(schedule, ready[i::BUCKETS_CONCURRENT], until_s)
            for i in range(BUCKETS_CONCURRENT)
        )

    async def _enlist(self, schedule: Schedule, buckets: Sequence[int]) -> list[int]:
        """Note who has a card; return the buckets in which somebody has."""
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
        """Serve a bucket's recipients; return whether time was up before the end."""
        while asyncio.get_running_loop().time() < until_s:
            players, count = await self._recipients.next_players(
                schedule, bucket, limit=BATCH
            )
            if players:
                await self._recipients.deliver(schedule, bucket, players)
                continue
            # Without a count nobody has written them down: gone with the store's data.
            await self._recipients.finish(schedule, {bucket: count or 0})
            return False
        return True


async def run_all(coroutines: Iterable[Coroutine[Any, Any, bool]]) -> bool:
    """Wait for all; raise the first failure, else return whether any said true."""
    # Not a task group: that would hide which failure it was in a group of them.
    outcomes = await asyncio.gather(*coroutines, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return any(outcomes)

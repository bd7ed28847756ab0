"""
Delivery of a schedule to its list of recipients.

Decides the size of portions, and when each bucket of a spread audience is served. Knows
recipients. Knows nothing of when a schedule is due: it is being sent already.

Every step is one atomic script, and none depends on which scheduler executed the one
before. So several schedulers may serve one audience concurrently, and another one
continues where a killed one stopped.

A recipient whose inbox is damaged goes to the end of its list, and is tried again once
a minute, as is a bucket whose list is damaged. The schedule stays ``sending`` until the
damage is repaired or the list expires.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from ...core.schedule import Schedule, bucket_starts_ms
from ...model import Player
from ...store.client.damage import Aside, Damage
from ...store.scheduling.recipients import PART, Recipients

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
        damage: Told of recipients that cannot be served.

    """

    def __init__(self, recipients: Recipients, damage: Damage | None = None) -> None:
        self._recipients = recipients
        self._damage = damage or Damage()
        self._aside = Aside()
        """Buckets of schedules of which nobody can be served."""

    async def send(
        self, schedule: Schedule, now_ms: int, *, for_s: float = TIME_SLICE_S
    ) -> bool:
        """
        Serve the buckets of an audience that have started, for about `for_s` seconds.

        Returns whether recipients of these buckets are left.

        Raises:
            Unavailable: Some recipients were not served; another call continues.
            ResponseError: The record of the schedule is damaged.

        """
        served = await self._recipients.served_buckets(schedule)
        ready = [
            bucket
            for nth, bucket in enumerate(schedule.buckets)
            if bucket not in served
            and bucket_starts_ms(schedule, nth) <= now_ms
            and (schedule.id, bucket) not in self._aside
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
        self._aside.add(*((schedule.id, it) for it in buckets if it not in counts))
        empty = {bucket: 0 for bucket, count in counts.items() if not count}
        await self._recipients.finish(schedule, empty)
        return [bucket for bucket in counts if bucket not in empty]

    async def _serve(
        self, schedule: Schedule, buckets: Sequence[int], until_s: float
    ) -> bool:
        for bucket in buckets:
            try:
                if await self._serve_bucket(schedule, bucket, until_s):
                    return True
            except ResponseError as error:
                where = f"recipients of schedule {schedule.id} of {schedule.app}"
                self._damage.note(PART, where, error)
                self._aside.add((schedule.id, bucket))
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
                try:
                    await self._recipients.deliver(schedule, bucket, players)
                except ResponseError:
                    await self._serve_each(schedule, bucket, players)
                continue
            # Without a count the store has lost the list of recipients.
            await self._recipients.finish(schedule, {bucket: count or 0})
            return False
        return True

    async def _serve_each(
        self, schedule: Schedule, bucket: int, players: Sequence[Player]
    ) -> None:
        """
        Serve recipients one by one, and postpone those who cannot be served.

        Raises:
            ResponseError: None of them can be.

        """
        failure: ResponseError | None = None
        some = False
        for player in players:
            try:
                some |= await self._recipients.deliver(schedule, bucket, [player]) > 0
            except ResponseError as error:
                failure = error
                where = f"inbox of a recipient of schedule {schedule.id}"
                self._damage.note(PART, f"{where} of {schedule.app}", error)
                await self._recipients.postpone(schedule, bucket, player)
        if failure is not None and not some:
            raise failure


async def run_all(coroutines: Iterable[Coroutine[Any, Any, bool]]) -> bool:
    """Wait for all; raise the first failure, or return whether any returned true."""
    # Not a task group, which would wrap the failure in an exception group.
    outcomes = await asyncio.gather(*coroutines, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return any(outcomes)

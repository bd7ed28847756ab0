"""
What apps have used of their quotas, as the store remembers it.

Decides how permits are lent, how players are counted, and how a place among the pending
schedules is taken. Knows scripts and the store's clock. Knows nothing of how much an
app may use, nor of whom it is told.

Players are counted by a HyperLogLog of every 30 days, and an app has as many as all
together that reach back for the retention have seen: its standard error is 0.81 %, and
who was sent nothing for so long is counted no more. Places are exact: one script takes
them for all schedules of a request, or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ...core.schedule import AHEAD_MAX_MS
from ...model import App, Log, Player
from ..client.connection import Command, RedisConnection, Script
from ..client.replies import ok
from ..keys import inbox_keys, players_key, quota_key
from ..logs.settings import DAY_MS, DEFAULTS, LogSettings

__all__ = ["RETRY_WHEN_FULL_MS", "QuotaUsage"]

PERIOD_MS: Final = 30 * DAY_MS

SCHEDULE_SLOTS_MS: Final = AHEAD_MAX_MS + DAY_MS
"""No schedule is due later."""

RETRY_WHEN_FULL_MS: Final = 3_600_000
"""When to try again what waiting does not help: somebody may have raised the quota."""

_QUOTA_PERMITS: Final = Script("quota_permits")
_SCHEDULE_SLOTS: Final = Script("schedule_slots")


class QuotaUsage:
    """
    The use of all apps.

    Args:
        redis: The way to the store.
        settings: The settings of all logs.
        clock_s: Unix time of this node, for what changes every 30 days.

    """

    def __init__(
        self,
        redis: RedisConnection,
        settings: LogSettings = DEFAULTS,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._periods = -(-settings.retention_ms // PERIOD_MS) + 1
        self._settings = settings
        self._clock_s = clock_s

    async def borrow(
        self,
        app: App,
        bucket: str,
        *,
        per_s: float,
        burst: int,
        needed: int,
        requested: int,
    ) -> tuple[int, float]:
        """
        Borrow permits of an app's bucket. O(1).

        Returns how many were lent, 0 where there were fewer than `needed`, and how many
        are left; see ``lua/quota_permits.lua``.

        Raises:
            StoreUnavailable: The store cannot be asked; permits may be lost.

        """
        lent, left = await self._redis.run(
            _QUOTA_PERMITS,
            (quota_key(app, bucket),),
            (self._settings.clock_ms(), repr(per_s), burst, needed, requested),
            # What is lent for nothing does no harm.
            write=False,
        )
        return lent, float(left)

    # Players.

    async def count_players(self, app: App) -> int:
        """Return about how many players an app has. Raises StoreUnavailable."""
        keys = [players_key(app, period) for period in self._recent()]
        count: int = await self._redis.call("PFCOUNT", *keys)
        return count

    async def note_players(self, app: App, players: Sequence[Player]) -> bool:
        """
        Count players; return whether any of them was new. O(players).

        Raises:
            StoreUnavailable: They may not be counted.

        """
        period = self._recent()[0]
        key = players_key(app, period)
        lifetime_ms = (self._periods + 1) * PERIOD_MS
        changed, kept = await self._redis.call_many(
            [("PFADD", key, *players), ("PEXPIRE", key, lifetime_ms)]
        )
        for reply in (changed, kept):
            ok(reply)
        return bool(changed)

    async def without_inbox(self, app: App, players: Iterable[Player]) -> int:
        """Return how many of these players have no inbox. Raises StoreUnavailable."""
        commands: list[Command] = [
            ("EXISTS", inbox_keys(Log(app, player))[0]) for player in players
        ]
        count = 0
        for reply in await self._redis.call_many(commands):
            count += not ok(reply)
        return count

    def _recent(self) -> list[int]:
        newest = int(self._clock_s() * 1000) // PERIOD_MS
        return [newest - age for age in range(self._periods)]

    # Places.

    async def take_schedule_slots(
        self, app: App, due_ms: dict[str, int], *, slots_max: int
    ) -> tuple[int, list[str]]:
        """
        Take a place for each schedule, by id, until it is due; or none at all.

        Returns 0 and the ids that had none before; or the ms until there may be enough.

        Raises:
            StoreUnavailable: Places may have been taken, and are free when they are
                due.

        """
        wait_ms, fresh = await self._redis.run(
            _SCHEDULE_SLOTS,
            (quota_key(app, "pending"),),
            (
                *(
                    self._settings.clock_ms(),
                    slots_max,
                    SCHEDULE_SLOTS_MS,
                    RETRY_WHEN_FULL_MS,
                ),
                *(word for name, due in due_ms.items() for word in (due, name)),
            ),
            write=False,
        )
        return wait_ms, [name.decode() for name in fresh]

    async def free_schedule_slots(self, app: App, ids: Sequence[str]) -> None:
        """Give places back, held or not. Raises StoreUnavailable."""
        await self._redis.call("ZREM", quota_key(app, "pending"), *ids)

    async def move_schedule_slot(self, app: App, schedule_id: str, due_ms: int) -> None:
        """
        Let a place, if it is held, be free at another time. Raises StoreUnavailable.
        """
        await self._redis.call(
            "ZADD", quota_key(app, "pending"), "XX", due_ms, schedule_id
        )

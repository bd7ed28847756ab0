"""
What apps have used of their quotas.

Decides how nodes borrow permits, how players are counted, and how schedule slots are
taken. Knows the scripts and the store's clock. Knows nothing of the size of quotas, nor
of the responses when one is used up.

Players are counted by one HyperLogLog per 30 days. An app's number of players is the
union of those that cover the retention, with a standard error of 0.81 %. A player who
was sent nothing for that long no longer counts. Schedule slots are exact: one script
takes them for all schedules of a request, or for none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ...core.schedule import AHEAD_MAX_MS
from ...model import App, Log, Player
from ..client.connection import Command, RedisConnection, Script
from ..client.replies import ok
from ..logs.settings import DAY_MS, DEFAULTS, LogSettings

__all__ = ["RETRY_WHEN_FULL_MS", "QuotaUsage"]

PERIOD_MS: Final = 30 * DAY_MS

SCHEDULE_SLOTS_MS: Final = AHEAD_MAX_MS + DAY_MS
"""The latest time at which a schedule can be due, and a day."""

RETRY_WHEN_FULL_MS: Final = 3_600_000
"""When to retry if waiting does not help: the quota may have been raised by then."""

# One small key for each app and quota: a full store can afford it. Without it, what a
# full store accepts would be refused to apps with quotas.
_QUOTA_PERMITS: Final = Script("quota_permits", allow_oom=True)
_SCHEDULE_SLOTS: Final = Script("schedule_slots", includes=("_whole",))


class QuotaUsage:
    """
    The usage of all apps.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.
        clock_s: Unix time of this node, for the periods of 30 days.

    """

    def __init__(
        self,
        redis: RedisConnection,
        settings: LogSettings = DEFAULTS,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
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
        Borrow permits from a token bucket of an app. O(1).

        Returns how many were lent, 0 if there were fewer than `needed`, and how many
        are left; see ``lua/access/quota_permits.lua``.

        Raises:
            StoreUnavailable: The store is unreachable; permits may be lost.

        """
        self._redis.terms.require_writable()
        lent, left = await self._redis.run(
            _QUOTA_PERMITS,
            (self._keys.quota(app, bucket),),
            (self._settings.clock_ms(), repr(per_s), burst, needed, requested),
            # Permits that are lent and never used do no harm.
            write=False,
        )
        return lent, float(left)

    # Players.

    async def count_players(self, app: App) -> int:
        """Return about how many players an app has. Raises StoreUnavailable."""
        keys = [self._keys.players(app, period) for period in self._recent()]
        count: int = await self._redis.call("PFCOUNT", *keys)
        return count

    async def note_players(self, app: App, players: Sequence[Player]) -> bool:
        """
        Count players; return whether that changed the count. O(players).

        Raises:
            StoreUnavailable: They may not be counted.

        """
        self._redis.terms.require_writable()
        period = self._recent()[0]
        key = self._keys.players(app, period)
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
            ("EXISTS", self._keys.inbox(Log(app, player))[0]) for player in players
        ]
        count = 0
        for reply in await self._redis.call_many(commands):
            count += not ok(reply)
        return count

    def _recent(self) -> list[int]:
        newest = int(self._clock_s() * 1000) // PERIOD_MS
        return [newest - age for age in range(self._periods)]

    # Schedule slots.

    async def take_schedule_slots(
        self, app: App, due_ms: dict[str, int], *, slots_max: int
    ) -> tuple[int, list[str]]:
        """
        Take a slot for each schedule, by id, until it is due; or none at all.

        Returns 0 and the ids that had no slot before, or the time in ms until enough
        slots may be free, and no ids.

        Raises:
            StoreUnavailable: Slots may have been taken. They are freed when they are
                due.

        """
        self._redis.terms.require_writable()
        wait_ms, fresh = await self._redis.run(
            _SCHEDULE_SLOTS,
            (self._keys.quota(app, "pending"),),
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
        """Free slots, whether they are taken or not. Raises StoreUnavailable."""
        self._redis.terms.require_writable()
        await self._redis.call("ZREM", self._keys.quota(app, "pending"), *ids)

    async def move_schedule_slot(self, app: App, schedule_id: str, due_ms: int) -> None:
        """
        Change the time at which a slot is freed, if it is taken.

        Raises StoreUnavailable.
        """
        self._redis.terms.require_writable()
        await self._redis.call(
            "ZADD", self._keys.quota(app, "pending"), "XX", due_ms, schedule_id
        )

"""
Types of notification that a player has muted.

Decides how many a player may mute. Knows the set beside the player's log; the scripts
that append check it. Knows nothing of rights.
"""

from __future__ import annotations

from typing import Final

from ...errors import Limit, LimitReached
from ...model import Log
from ..client.connection import RedisConnection, Script

__all__ = ["MUTES_MAX", "Mutes"]

MUTES_MAX: Final = 100
"""Types that a player may mute. The set never expires, so it needs a limit."""

_MUTE: Final = Script("mute")


class Mutes:
    """
    The muted types of all players.

    Every method raises StoreUnavailable; those that write raise OutcomeUnknown, too.

    Args:
        redis: The connection to the store.

    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def mute(self, log: Log, type_: str) -> bool:
        """
        Stop storing a type for a player. Returns whether it was not muted before.

        Raises:
            LimitReached: The player has muted `MUTES_MAX` types.

        """
        keys = (self._keys.mutes(log),)
        outcome = await self._redis.run(_MUTE, keys, (type_, MUTES_MAX))
        if outcome < 0:
            raise LimitReached(Limit.MUTES_PER_PLAYER)
        return bool(outcome)

    async def unmute(self, log: Log, type_: str) -> bool:
        """Store a type again. Returns whether it was muted."""
        key = self._keys.mutes(log)
        return bool(await self._redis.call("SREM", key, type_, write=True))

    async def of(self, log: Log) -> list[str]:
        """Return the types that a player has muted, sorted."""
        names = await self._redis.call("SMEMBERS", self._keys.mutes(log))
        return sorted(name.decode() for name in names)

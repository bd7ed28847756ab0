"""
Mutes: types of notification that a player does not want.

Decides how many there may be. Knows a set beside the player's inbox, which the scripts
that append look into. Knows nothing of who may ask.
"""

from __future__ import annotations

from typing import Final

from ...errors import Limit, LimitReached
from ...model import Log
from ..client.connection import RedisConnection, Script
from ..keys import mutes_key

__all__ = ["MUTES_MAX", "Mutes"]

MUTES_MAX: Final = 100
"""Types that a player may mute. The set has no end, so it has to have a limit."""

_MUTE: Final = Script("mute")


class Mutes:
    """
    What players have muted. All raise StoreUnavailable, those that write
    OutcomeUnknown.

    Args:
        redis: The way to the store.

    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def mute(self, log: Log, type_: str) -> bool:
        """
        Store nothing of a type for a player from now on; return whether that is new.

        Raises:
            LimitReached: The player has muted `MUTES_MAX` types.

        """
        outcome = await self._redis.run(_MUTE, (mutes_key(log),), (type_, MUTES_MAX))
        if outcome < 0:
            raise LimitReached(Limit.MUTES_PER_PLAYER)
        return bool(outcome)

    async def unmute(self, log: Log, type_: str) -> bool:
        """Take a mute back; return whether there was one."""
        return bool(await self._redis.call("SREM", mutes_key(log), type_, write=True))

    async def of(self, log: Log) -> list[str]:
        """Return the types that a player has muted, by name."""
        return sorted(
            name.decode() for name in await self._redis.call("SMEMBERS", mutes_key(log))
        )

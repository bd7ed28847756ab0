"""
Devices: on which of them a player is listening, and which was used last.

Decides nothing: who appends picks the one. Knows a hash beside the player's leases.
An item whose lease is gone, or whose node is, means nothing; so none has to be taken
out for anything to be right.
"""

from __future__ import annotations

from typing import Final

from ...model import Log
from ..client.connection import RedisConnection, Script
from ..keys import devices_key
from .leases import LEASE_MS

__all__ = ["Devices"]

_USED: Final = Script("device_used")


class Devices:
    """
    Devices of this node's listeners.

    Args:
        redis: The way to the store.
        node: The node's name, as in its leases.

    """

    def __init__(self, redis: RedisConnection, node: str) -> None:
        self._redis = redis
        self._node = node

    async def note_use(self, log: Log, connection: str, device: str) -> None:
        """Note that a device is in use. Raises Unavailable; repeating is harmless."""
        member = f"{self._node}:{connection}"
        await self._redis.run(_USED, (devices_key(log),), (member, device, LEASE_MS))

    async def forget(self, log: Log, connection: str) -> None:
        """Forget a connection. Raises Unavailable; repeating is harmless."""
        member = f"{self._node}:{connection}"
        await self._redis.call("HDEL", devices_key(log), member, write=True)

"""
The devices on which a player has open connections, and when each was used.

Decides nothing; the scripts that append select the device used last. Knows the hash
beside the player's leases. An item means nothing without a lease of a live node, so a
stale item does no harm.
"""

from __future__ import annotations

from typing import Final

from ...model import Log
from ..client.connection import RedisConnection, Script
from .leases import LEASE_MS

__all__ = ["Devices"]

_USED: Final = Script("device_used", includes=("_whole",))


class Devices:
    """
    The devices of this node's connections.

    Args:
        redis: The connection to the store.
        node: The node's name, as in its leases.

    """

    def __init__(self, redis: RedisConnection, node: str) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._node = node

    async def note_use(self, log: Log, connection: str, device: str) -> None:
        """Record that a device is in use. Raises Unavailable. Idempotent."""
        member = f"{self._node}:{connection}"
        keys = (self._keys.devices(log),)
        await self._redis.run(_USED, keys, (member, device, LEASE_MS))

    async def forget(self, log: Log, connection: str) -> None:
        """Forget a connection. Raises Unavailable. Idempotent."""
        member = f"{self._node}:{connection}"
        await self._redis.call("HDEL", self._keys.devices(log), member, write=True)

"""
The hashes by which audit logs and the list of erasures name players.

Decides how a hash is made. Its key is in the store, so that every node and every start
gives a player the same hash. The hash shows which records concern one player. Who can
read the store can find the player of a hash by trying names; nobody else can.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final

from ...model import Log
from ..client.connection import RedisConnection

__all__ = ["Pseudonyms", "pseudonym"]

HASH_BYTES: Final = 16
_KEY_BYTES: Final = 32


def pseudonym(key: bytes, log: Log) -> str:
    """Return the hash of a player under a key of 32 bytes: 32 hexadecimal digits."""
    text = f"{log.app}\0{log.name}".encode()
    return blake2b(text, key=key, digest_size=HASH_BYTES).hexdigest()


class Pseudonyms:
    """
    The hashes of a deployment. Every method raises StoreUnavailable, OutcomeUnknown.

    Args:
        redis: The connection to the store.

    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._key = b""

    async def of(self, log: Log) -> str:
        """Return the hash of a player."""
        return pseudonym(await self.key(), log)

    async def key(self) -> bytes:
        """Return the key. The first call in a deployment makes it."""
        if not self._key:
            name, fresh = self._redis.keys.pseudonyms, secrets.token_hex(_KEY_BYTES)
            stored = await self._redis.call("GET", name)
            if stored is None:
                stored = await self._redis.call(
                    *("SET", name, fresh, "NX", "GET"), write=True
                )
            self._key = bytes.fromhex(stored.decode() if stored else fresh)
        return self._key

    async def adopt(self, key: bytes) -> bool:
        """Take a key from elsewhere unless there is one; return whether it is this."""
        name = self._redis.keys.pseudonyms
        # Mostly there is one, and a full store would refuse the write.
        if await self._redis.call("GET", name) is None:
            await self._redis.call("SET", name, key.hex(), "NX", write=True)
        self._key = b""
        return await self.key() == key

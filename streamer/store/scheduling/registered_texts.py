"""
Texts that an app has registered under identifiers, one key each.

The first text that is registered under an identifier stays.
"""

from __future__ import annotations

from ...errors import StoreFull
from ...model import App
from ..client.connection import RedisConnection

__all__ = ["RegisteredTexts"]


class RegisteredTexts:
    """The registered texts of all apps."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def find(self, app: App, identifier: str) -> str | None:
        """Return the registered text, or None. Raises StoreUnavailable."""
        text = await self._redis.call("GET", self._keys.message(app, identifier))
        return None if text is None else str(text, "utf-8")

    async def register(self, app: App, identifier: str, text: str) -> str:
        """
        Register a text unless there is one; return the registered text. O(1).

        Raises:
            StoreFull: There is none, and the store is full.
            StoreUnavailable: Nothing was registered.
            OutcomeUnknown: The text may have been registered. Idempotent.

        """
        key = self._keys.message(app, identifier)
        try:
            before = await self._redis.call("SET", key, text, "NX", "GET", write=True)
        except StoreFull:
            # A full store refuses the command although the text is there.
            before = await self._redis.call("GET", key)
            if before is None:
                raise
        return text if before is None else str(before, "utf-8")

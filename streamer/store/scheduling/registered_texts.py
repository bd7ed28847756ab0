"""
Texts that an app has registered under identifiers.

Decides nothing: the first text stays. Knows one key for each identifier.
"""

from __future__ import annotations

from ...model import App
from ..client.connection import RedisConnection
from ..keys import message_key

__all__ = ["RegisteredTexts"]


class RegisteredTexts:
    """Registered texts of all apps."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def register(self, app: App, identifier: str, text: str) -> str:
        """
        Register a text unless there is one; return the one that is registered. O(1).

        Raises:
            StoreUnavailable: Nothing was registered.
            OutcomeUnknown: It may have been; a repetition is harmless.

        """
        key = message_key(app, identifier)
        before = await self._redis.call("SET", key, text, "NX", "GET", write=True)
        return text if before is None else str(before, "utf-8")

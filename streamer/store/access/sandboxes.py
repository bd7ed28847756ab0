"""
Players and topics that exist for a limited time, and are then removed.

Decides which keys are removed. Knows the index of sandboxes by the time of their
opening. Knows nothing of who opens one, nor of how long it may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ...model import App, Log
from ..client.connection import RedisConnection
from ..client.replies import ok

__all__ = ["Sandboxes"]

REMOVED_MAX: Final = 20
"""Sandboxes that one call removes."""


class Sandboxes:
    """
    The sandboxes of an app. Every method raises StoreUnavailable; those that change
    something also raise OutcomeUnknown, and may be repeated.

    Args:
        redis: The connection to the store.
        app: The app to which their logs belong.
        logs_of: Returns the logs of a sandbox by its name.

    """

    def __init__(
        self, redis: RedisConnection, app: App, logs_of: Callable[[str], Iterable[Log]]
    ) -> None:
        self._redis = redis
        self._index = redis.keys.sandboxes(app)
        self._logs_of = logs_of

    async def add(self, name: str, *, now_s: float) -> None:
        """Note that a sandbox is opened. Call it before anything is stored in it."""
        await self._redis.call("ZADD", self._index, int(now_s), name, write=True)

    async def opened_s(self, name: str) -> float | None:
        """Return when a sandbox was opened; None if it was not, or is removed."""
        score = await self._redis.call("ZSCORE", self._index, name)
        return None if score is None else float(score)

    async def remove(self, *, before_s: float) -> None:
        """
        Remove the sandboxes that were opened before `before_s`, the oldest first, and
        at most `REMOVED_MAX` of them. Nothing may be using them any more.
        """
        found: list[bytes] = await self._redis.call(
            *("ZRANGEBYSCORE", self._index, "-inf", f"({int(before_s)}"),
            *("LIMIT", 0, REMOVED_MAX),
        )
        if not found:
            return
        logs = [log for name in found for log in self._logs_of(name.decode())]
        commands = [("DEL", key) for log in logs for key in self._keys_of(log)]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)
        # Last, so that a call that fails on the way is made good by the next one.
        await self._redis.call("ZREM", self._index, *found, write=True)

    def _keys_of(self, log: Log) -> list[str]:
        keys = self._redis.keys
        beside = (keys.mutes, keys.views, keys.tally, keys.lease, keys.devices)
        return [*keys.inbox(log), *(key(log) for key in beside)]

"""
An app that exists for one measurement.

What a load test sends reaches nobody but its own readers, and nothing of it stays. An
app is made in the store, so this needs access to that, as `streamer app create` does.
Knows how apps are made and removed, and their tokens. Knows nothing of targets.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from ..core.access.apps import AppRecord
from ..core.access.tokens import TTL_MAX_S, mint
from ..model import App, parse_player
from ..store.access.apps import Apps
from ..store.access.removal import remove_app
from ..store.client.connection import RedisConnection

__all__ = ["OwnApp", "Store"]

PREFIX: Final = "bench-"
STALE_S: Final = 86_400
"""The age at which an app of a run that was killed is removed by another run."""

Store = Callable[[], AbstractAsyncContextManager[RedisConnection]]
"""Opens the store of the deployment."""


class OwnApp:
    """
    An app of a random name, from `create` to `remove`.

    Args:
        store: Opens the store.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        # The time is in the name, so that another run can tell what was left behind.
        self.name = App(f"{PREFIX}{int(time.time()):x}-{secrets.token_hex(4)}")
        self._record: AppRecord | None = None

    def create(self) -> str:
        """Create the app, and remove what killed runs have left; return a key of it."""

        async def create() -> str:
            async with self._store() as redis:
                apps = Apps(redis)
                for record in await apps.list():
                    if _is_stale(record.name, time.time()):
                        await remove_app(redis, record.name)
                self._record = await apps.create(self.name)
                return await apps.add_key(self.name)

        return asyncio.run(create())

    def mint(self, players: Sequence[str]) -> list[str]:
        """Return a token of each of these players, valid for a day."""
        record, now_s = self._record, int(time.time())
        assert record is not None
        tokens = []
        for name in players:
            player = parse_player(name)
            assert player is not None
            tokens.append(mint(record, player, ttl_s=TTL_MAX_S, now_s=now_s))
        return tokens

    def remove(self) -> None:
        """Remove the app with all that was stored for it; nothing if there is none."""
        if self._record is None:
            return

        async def remove() -> None:
            async with self._store() as redis:
                await remove_app(redis, self.name)

        asyncio.run(remove())
        self._record = None


def _is_stale(name: str, now_s: float) -> bool:
    made, _, _ = name.removeprefix(PREFIX).partition("-")
    if not name.startswith(PREFIX):
        return False
    try:
        return int(made, 16) + STALE_S < now_s
    except ValueError:
        return False

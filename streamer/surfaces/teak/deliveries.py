"""
Deliveries: a registered text to several players, with one schedule per player.

Decides how often an app may call an operation, and that the text registered first under
an identifier is the one that is sent. Knows schedules, registered texts and rates.
Knows nothing of how Teak encodes requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ...core.access.rights import Caller
from ...errors import RateLimited
from ...model import Notification, Player
from ...service.scheduling.schedules import Schedules
from ...store.access.rates import Rates
from ...store.scheduling.registered_texts import RegisteredTexts

__all__ = ["CALLS_PER_S", "Deliveries"]

CALLS_PER_S: Final = 30
"""Teak: calls of each operation that an app may make per second, on all nodes."""


class Deliveries:
    """
    The operations on deliveries, with the rights of a caller.

    Args:
        schedules: The operations on schedules.
        messages: Texts by identifier.
        rates: The rates of calls in the store.
        refusals: Counts the calls that were refused.

    """

    def __init__(
        self,
        schedules: Schedules,
        messages: RegisteredTexts,
        rates: Rates,
        refusals: Counter[str] | None = None,
    ) -> None:
        self._refusals = Counter() if refusals is None else refusals
        self._schedules = schedules
        self._messages = messages
        self._rates = rates

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        return await self._schedules.now_ms()

    async def count_call(self, caller: Caller, operation: str) -> None:
        """
        Count a call of the caller's app, whether it succeeds or not.

        Raises:
            RateLimited: The app's rate is exceeded.
            StoreUnavailable: The call cannot be counted.

        """
        try:
            await self._rates.count(caller.app, operation, per_s=CALLS_PER_S)
        except RateLimited:
            self._refusals["calls_per_app"] += 1
            raise

    async def message_of(self, caller: Caller, identifier: str) -> str | None:
        """
        Return the text that is registered under an identifier, None if none is.

        Raises StoreUnavailable.
        """
        return await self._messages.find(caller.app, identifier)

    async def schedule(
        self,
        caller: Caller,
        players: Sequence[Player],
        *,
        identifier: str,
        message: str,
        due_ms: int,
        source: str,
        idempotency_key: str | None = None,
    ) -> tuple[list[str], bool]:
        """
        Schedule a text for players; see `Schedules.schedule_each`.

        It is delivered live only to the device that a player used last. `message` is
        registered under the identifier unless another text is registered already, which
        is sent instead.
        """
        for player in players:
            caller.require_write(player)
        text = await self._messages.register(caller.app, identifier, message)
        return await self._schedules.schedule_each(
            caller,
            players,
            Notification(type=identifier, body=text, source=source),
            due_ms=due_ms,
            label=identifier,
            extra_part=message,
            to_latest=True,
            idempotency_key=idempotency_key,
        )

    async def cancel(self, caller: Caller, ids: Sequence[str]) -> list[str]:
        """
        Cancel deliveries by id; return the ids of those cancelled. See `Schedules`.
        """
        return await self._schedules.cancel_many(caller, ids)

    async def cancel_by_identifier(
        self, caller: Caller, players: Sequence[Player], identifier: str
    ) -> list[str]:
        """Cancel the deliveries of an identifier to players; return their ids."""
        return await self._schedules.cancel_by_label(caller, players, identifier)

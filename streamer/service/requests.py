"""
Requests in flight: how many a node works on at once.

Decides whether a request that is answered at once may be worked on. Held polls and
streams are not counted here: they have slots of their own, so that a node full of
streams still serves pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..config import Config
from ..core.limits import Slots, SlotsPerKey
from ..errors import Limit
from ..model import Log

__all__ = ["Requests"]


class Requests:
    """The node's requests in flight, and each player's among them."""

    def __init__(self, config: Config) -> None:
        self._all = Slots(config.requests_in_flight_max, Limit.REQUESTS_PER_NODE)
        self._by_log = SlotsPerKey(
            config.requests_per_player_max, Limit.REQUESTS_PER_PLAYER
        )

    @contextmanager
    def hold(self, log: Log) -> Iterator[None]:
        """
        Count a request about `log` for the block.

        Raises:
            Refused: The node or the player has too many in flight.

        """
        with self._all.hold(), self._by_log.hold(log):
            yield

"""
Requests in flight: how many a node works on at once.

Decides whether a request that is answered at once may be worked on, and that no app has
all of the node: the others find room beside its flood. Held polls and streams are not
counted here: they have slots of their own, so that a node full of streams still serves
pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from ..config import Config
from ..core.figures import Figures
from ..core.limits import Slots, SlotsPerKey
from ..errors import Limit
from ..model import App, Log

__all__ = ["Requests"]


class Requests:
    """The node's requests in flight, and each app's and player's among them."""

    def __init__(self, config: Config, figures: Figures | None = None) -> None:
        refusals = None if figures is None else figures.refusals
        self._all = Slots(
            config.requests_in_flight_max,
            Limit.REQUESTS_PER_NODE,
            refusals=refusals,
        )
        share = config.requests_in_flight_max * config.requests_per_app_percent
        self._by_app = SlotsPerKey(
            math.ceil(share / 100), Limit.REQUESTS_PER_APP, refusals=refusals
        )
        self._by_log = SlotsPerKey(
            config.requests_per_player_max,
            Limit.REQUESTS_PER_PLAYER,
            refusals=refusals,
        )

    @contextmanager
    def hold(self, log: Log) -> Iterator[None]:
        """
        Count a request about `log` for the block.

        Raises:
            Refused: The node, the app or the player has too many in flight.

        """
        with self.hold_for(log.app), self._by_log.hold(log):
            yield

    @contextmanager
    def hold_for(self, app: App) -> Iterator[None]:
        """Count a request of an app, about no player in particular; see `hold`."""
        with self._all.hold(), self._by_app.hold(app):
            yield

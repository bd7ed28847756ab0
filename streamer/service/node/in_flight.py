"""
Requests in flight: how many a node processes concurrently.

Decides whether a short request may be processed, and that no app uses the whole node:
others are still served while one floods it. Streams and held polls are not counted
here. They have slots of their own, so that a node full of streams still serves pages.
"""

from __future__ import annotations

import math

from ...config import Config
from ...core.counters import Counters
from ...core.limits import Slots, SlotsPerKey
from ...errors import Limit, LimitReached
from ...model import App, Log

__all__ = ["InFlight", "InFlightGuard"]


class InFlight:
    """The requests in flight of the node, and of each app and player."""

    def __init__(self, config: Config, counters: Counters | None = None) -> None:
        refusals = None if counters is None else counters.refusals
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

    def track(self, log: Log) -> InFlightGuard:
        """
        Return a context manager that counts a request about `log`.

        Entering it raises:
            LimitReached: The node, the app or the player has too many in flight.

        """
        return InFlightGuard(self, log.app, log)

    def track_app(self, app: App) -> InFlightGuard:
        """Return a context manager that counts a request of an app; see `track`."""
        return InFlightGuard(self, app, None)

    def acquire(self, app: App, log: Log | None) -> None:
        """Take all slots of a request, or raise LimitReached and take none."""
        self._all.acquire()
        try:
            self._by_app.acquire(app)
            try:
                if log is not None:
                    self._by_log.acquire(log)
            except LimitReached:
                self._by_app.release(app)
                raise
        except LimitReached:
            self._all.release()
            raise

    def release(self, app: App, log: Log | None) -> None:
        """Release the slots of a request."""
        if log is not None:
            self._by_log.release(log)
        self._by_app.release(app)
        self._all.release()


class InFlightGuard:
    """
    The context manager of one request; see `InFlight.track`.

    Not a `contextlib.contextmanager`: two of these were a twentieth of a publish.
    """

    __slots__ = ("_app", "_in_flight", "_log")

    def __init__(self, in_flight: InFlight, app: App, log: Log | None) -> None:
        self._in_flight = in_flight
        self._app = app
        self._log = log

    def __enter__(self) -> None:
        self._in_flight.acquire(self._app, self._log)

    def __exit__(self, *_: object) -> None:
        self._in_flight.release(self._app, self._log)

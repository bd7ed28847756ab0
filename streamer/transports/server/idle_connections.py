"""
Connections without a request, when descriptors are scarce.

Decides which connections are closed so that others can be opened. Knows how long a
connection has waited, and for what. Knows nothing of HTTP.

Every connection is a descriptor, whether it carries a request or not. Each has a
deadline, but a client may open any number of them: silent ones, ones that are kept
alive, heads that never end. Without a bound they would take the descriptors that are
reserved for requests. So beyond `connections_max` connections those that have waited
longest are closed, the least useful first::

    a head that is not complete after a second
    a new connection that has been silent for half a second
    a connection that has been kept alive, for a second or longer
    a body that is not complete after three seconds
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

from .read_first import call_after_reading

__all__ = [
    "FDS_BESIDE_CONNECTIONS",
    "IdleConnections",
    "MayBeIdle",
    "Waiting",
    "WaitingFor",
]

FDS_BESIDE_CONNECTIONS: Final = 64
"""Listeners, the store's connections, modules, logs."""

AGAIN_S: Final = 0.25
"""How soon it is looked again while nothing could be closed."""

SLACK_DIVISOR: Final = 16
"""At a time so many more are closed, so that the search is rare."""

LOG_EVERY_S: Final = 60.0

_logger = logging.getLogger(__name__)


class WaitingFor(IntEnum):
    """What a connection waits for; the first is closed first."""

    HEAD, FIRST_REQUEST, NEXT_REQUEST, BODY = range(4)


_PATIENCE_S: Final = {
    WaitingFor.HEAD: 1.0,
    WaitingFor.FIRST_REQUEST: 0.5,
    WaitingFor.NEXT_REQUEST: 1.0,
    WaitingFor.BODY: 3.0,
}
"""How long it may wait, whatever happens."""


class Waiting(NamedTuple):
    """What a connection waits for, and since when by the loop's time."""

    what: WaitingFor
    since_s: float


class MayBeIdle:
    """A connection that can be without a request."""

    __slots__ = ()

    def waiting(self) -> Waiting | None:
        """Return what it waits for; None if it is in use or closing."""
        raise NotImplementedError

    def close_idle(self) -> None:
        """Close it at once, without a response."""
        raise NotImplementedError


class IdleConnections:
    """
    Closes connections without a request while there are more than `connections_max`.

    Args:
        connections_max: Number of connections, with requests and streams.

    """

    def __init__(self, connections_max: int) -> None:
        self._max = connections_max
        self._again: asyncio.TimerHandle | None = None
        self._silent_until_s = float("-inf")
        self.closed = 0
        """Number of connections closed."""

    def note_opened(self, connections: Collection[Any]) -> None:
        """Note a new connection. O(1), unless there are more than `connections_max`."""
        if len(connections) > self._max and self._again is None:
            self._make_room(connections)

    def _make_room(self, connections: Collection[Any]) -> None:
        self._again = None
        excess = len(connections) - self._max
        if excess <= 0:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        idle = sorted(_idle(connections, now_s), key=lambda pair: pair[0])
        for _, connection in idle[: excess + self._max // SLACK_DIVISOR]:
            connection.close_idle()
            self.closed += 1
        if idle and now_s >= self._silent_until_s:
            self._silent_until_s = now_s + LOG_EVERY_S
            _logger.warning(
                "no descriptors are left for more than %d connections: closing those "
                "without a request, %d so far; raise the limit of open files "
                "(ulimit -Hn, LimitNOFILE=)",
                self._max,
                self.closed,
            )
        # Closed ones leave a moment later. Others may have waited for too short a time.
        # Then what has arrived is read first.
        self._again = loop.call_later(
            AGAIN_S, call_after_reading, loop, self._make_room, connections
        )


def _idle(
    connections: Collection[Any], now_s: float
) -> Iterator[tuple[Waiting, MayBeIdle]]:
    for connection in connections:
        if isinstance(connection, MayBeIdle) and (waiting := connection.waiting()):
            if now_s - waiting.since_s >= _PATIENCE_S[waiting.what]:
                yield waiting, connection

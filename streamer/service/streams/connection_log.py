"""
The log and the counters of connections that stay open.

Decides the content of the line that is logged when a stream ends: the transport, the
reason, the duration, the app, and the id of the request that opened it. Knows readers
and the clock. Knows nothing of requests: a stream may outlive its request by days.

Waiting polls are counted but not logged: their requests have lines of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.counters import CLIENT_LEFT
from ...core.streams.audience_subscription import AudienceSubscription
from ...errors import ERASED, SLOW, Disconnect, Unauthenticated
from ...hub import Reader
from ...model import Log
from ..access.failures import FailedAuthentications
from ..inspection.history import History
from ..node.fast_log import emit
from ..node.player_names import PlayerNames
from ..node.request_context import current_request, note_app, request_id

__all__ = ["ConnectionLog", "Opening"]

_logger = logging.getLogger(__name__)


class Opening(NamedTuple):
    """When a connection was opened, monotonic and Unix time, and by whom."""

    at_s: float
    at_ms: int
    request_id: str
    client: str


class ConnectionLog:
    """
    The open connections, with the time and the request of their opening.

    Args:
        players: Names players.
        failures: Counts authentications that fail.
        history: Remembers the ends of connections.
        clock_s: Returns monotonic time.

    """

    def __init__(
        self,
        players: PlayerNames | None = None,
        failures: FailedAuthentications | None = None,
        history: History | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._players = players or PlayerNames("none", "")
        self._failures = failures or FailedAuthentications()
        self._history = history or History()
        self._clock_s = clock_s
        self._open: dict[Reader, Opening] = {}

    def opened(self, log: Log, reader: Reader) -> None:
        """Count a reader that has joined, opened by the current request."""
        if reader.transport is None:
            return
        reader.transport.opened += 1
        note_app(log.app)
        context = current_request.get()
        client = context.client if context else ""
        self._open[reader] = Opening(
            self._clock_s(), int(time.time() * 1_000), request_id(), client
        )

    def opening_of(self, reader: Reader) -> Opening | None:
        """Return when and by whom a reader was opened, None if it has not joined."""
        return self._open.get(reader)

    def failed_renewal(self, reader: Reader, error: Unauthenticated) -> None:
        """Count a credential that was refused on an open connection."""
        if opened := self._open.get(reader):
            self._failures.note(opened.client, error)

    def closed(
        self,
        log: Log,
        reader: Reader,
        ended: Disconnect | None,
        followed: Sequence[AudienceSubscription] = (),
    ) -> None:
        """
        Count and log a reader that has left, if it was opened.

        Args:
            log: The log of its player.
            reader: The reader.
            ended: Why it has left, None if the client or the network has closed it.
            followed: Its subscriptions to audiences, from which it is detached.

        """
        opened = self._open.pop(reader, None)
        transport = reader.transport
        if opened is None or transport is None:
            return
        transport.close(ended)
        is_silent = transport.name == "longpoll" and ended is None
        # The history may have forgotten a player who is erased already.
        if not is_silent and ended != ERASED:
            self._history.closed(
                log,
                reader,
                ended or (0, CLIENT_LEFT),
                transport=transport.name,
                client=opened.client,
                connected_ms=opened.at_ms,
                followed=followed,
            )
        if transport.name == "longpoll":
            return
        code, reason = ended or (None, CLIENT_LEFT)
        fields = {
            "transport": transport.name,
            "code": code,
            "reason": reason,
            "duration_ms": round((self._clock_s() - opened.at_s) * 1_000),
            "app": log.app,
            "player": self._players.of(log.app, log.player),
            "client": opened.client,
            "request_id": opened.request_id,
        }
        level = logging.WARNING if ended == SLOW else logging.INFO
        emit(_logger, f"stream ended: {reason}", fields, level)

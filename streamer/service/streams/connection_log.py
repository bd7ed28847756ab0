"""
What is told of connections that stay: one line as each stream ends, and the counts.

Decides what such a line has in it: the transport, why it ended, how long it was open,
whose app, and the id of the request that opened it. Knows readers and the clock. Knows
nothing of requests: a stream may outlive its own by days.

Held polls are counted and not told of: their requests have lines of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from ...core.counters import CLIENT_LEFT
from ...errors import SLOW
from ...hub import Reader
from ...model import Log
from ..node.fast_log import emit
from ..node.request_context import note_app, request_id

__all__ = ["ConnectionLog"]

_logger = logging.getLogger(__name__)


class _Opened(NamedTuple):
    at_s: float
    request_id: str


class ConnectionLog:
    """
    The connections that are open, and since when.

    Args:
        clock_s: Monotonic time.

    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._open: dict[Reader, _Opened] = {}

    def opened(self, log: Log, reader: Reader) -> None:
        """A reader has begun to follow a log, at the request that is being served."""
        if reader.transport is None:
            return
        reader.transport.opened += 1
        note_app(log.app)
        self._open[reader] = _Opened(self._clock_s(), request_id())

    def closed(self, log: Log, reader: Reader) -> None:
        """A reader has gone, and says in `ended` why; one not opened is passed over."""
        opened = self._open.pop(reader, None)
        transport = reader.transport
        if opened is None or transport is None:
            return
        transport.close(reader.ended)
        if transport.name == "longpoll":
            return
        code, reason = reader.ended or (None, CLIENT_LEFT)
        fields = {
            "transport": transport.name,
            "code": code,
            "reason": reason,
            "duration_ms": round((self._clock_s() - opened.at_s) * 1_000),
            "app": log.app,
            "request_id": opened.request_id,
        }
        level = logging.WARNING if reader.ended == SLOW else logging.INFO
        emit(_logger, f"stream ended: {reason}", fields, level)

"""
Deliveries in a trace: from the announcement of an entry to its writes to connections.

Decides that a delivery is one span per node, however many connections there are, and
when it has ended: when the hub has offered the entry to all readers of its log and one
has taken it, or when a read of the log has brought it to one. What no reader of this
node gets has no span. Knows nothing of the hub.
"""

from __future__ import annotations

from time import time_ns
from typing import Final, NamedTuple

from ...core.trace_context import TraceContext
from ...model import Entry, Log
from ..node.player_names import PlayerNames
from .spans import Kind, Tracing, destination, operation

__all__ = ["DeliveryTraces"]

WAITING_MAX: Final = 256
"""Announced entries that wait for their delivery; the oldest give way."""

WAITING_S: Final = 30.0
"""How long one waits: what no reader takes, or the store did not let them read."""


class _Waiting(NamedTuple):
    trace: TraceContext
    began_ns: int
    message_id: str
    readers: int


class DeliveryTraces:
    """
    The deliveries of this node that belong to a sampled trace.

    Args:
        tracing: Makes spans.
        players: Names players.

    """

    def __init__(self, tracing: Tracing, players: PlayerNames) -> None:
        self._tracing = tracing
        self._players = players
        self.waiting: dict[tuple[Log, int], _Waiting] = {}
        """Announced and not delivered yet, by log and offset (0: ephemeral)."""

    def begin(
        self, log: Log, entry: Entry | None, trace: TraceContext, *, readers: int
    ) -> None:
        """
        Begin the delivery of an entry, or of an ephemeral notification for None.

        `readers` is the number of connections on this node that follow the log. Without
        one, an ephemeral notification is delivered to nobody, and has no delivery.
        """
        if entry is None and not readers:
            return
        now_ns = time_ns()
        while self.waiting:
            oldest = next(iter(self.waiting))
            is_late = now_ns - self.waiting[oldest].began_ns > WAITING_S * 1e9
            if len(self.waiting) < WAITING_MAX and not is_late:
                break
            del self.waiting[oldest]
        offset, message_id = (0, "") if entry is None else (entry.offset, entry.id)
        self.waiting[log, offset] = _Waiting(trace, now_ns, message_id, readers)

    def delivered(self, log: Log, offset: int) -> None:
        """End the delivery of an entry, if it has one: it was written as announced."""
        self._end(log, offset, "announcement")

    def read(self, log: Log, first: int, last: int) -> None:
        """End the deliveries of entries that a read has brought to a connection."""
        for of_log, offset in [*self.waiting]:
            if of_log == log and first <= offset <= last:
                self._end(log, offset, "read")

    def forget(self, log: Log) -> None:
        """Forget all about a log."""
        for key in [it for it in self.waiting if it[0] == log]:
            del self.waiting[key]

    def _end(self, log: Log, offset: int, way: str) -> None:
        waiting = self.waiting.pop((log, offset), None)
        if waiting is None:
            return
        kind, named = destination([log], self._players)
        attributes = {
            **operation("deliver", "process"),
            **named,
            "streamer.delivery": way,
            "streamer.readers": waiting.readers,
        }
        if waiting.message_id:
            attributes["messaging.message.id"] = waiting.message_id
        self._tracing.done(
            f"deliver {kind}",
            Kind.CONSUMER,
            attributes,
            parent=waiting.trace,
            began_ns=waiting.began_ns,
        )

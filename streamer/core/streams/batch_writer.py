"""
Writing one event to many sinks at once.

Decides which readers may share a write: those with an equal `DeliveryProfile`. Knows
the codec and the counters. Knows nothing of audiences, and of sinks only that they can
be written to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from ..counters import TransportCounters
from .codec import Codec

__all__ = ["ONE_BY_ONE", "BatchWriter", "DeliveryProfile"]


class BatchWriter(Protocol):
    """Writes the same bytes to many sinks of one kind."""

    def write_all(
        self, sinks: Iterable[Any], event: bytes, buffer_bytes_max: int
    ) -> list[Any]:
        """Write an event to each sink as `Sink.write` does; return the full ones."""


class _OneByOne:
    def write_all(
        self, sinks: Iterable[Any], event: bytes, buffer_bytes_max: int
    ) -> list[Any]:
        return [sink for sink in sinks if not sink.write(event, buffer_bytes_max)]


ONE_BY_ONE: Final = _OneByOne()
"""For sinks that have no faster way."""


class DeliveryProfile(NamedTuple):
    """How a reader is written to. Readers with equal profiles share one write."""

    batch_writer: BatchWriter
    codec: Codec
    buffer_bytes_max: int
    """Bytes that may be queued for one reader."""
    transport: TransportCounters
    """The counters of the reader's transport."""

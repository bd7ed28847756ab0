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
    """How bytes go to many sinks of a kind."""

    def write_all(
        self, sinks: Iterable[Any], event: bytes, buffer_bytes_max: int
    ) -> list[Any]:
        """Write an event to each as `Sink.write` does; return those without room."""


class _OneByOne:
    def write_all(
        self, sinks: Iterable[Any], event: bytes, buffer_bytes_max: int
    ) -> list[Any]:
        return [sink for sink in sinks if not sink.write(event, buffer_bytes_max)]


ONE_BY_ONE: Final = _OneByOne()
"""For sinks that know no better way."""


class DeliveryProfile(NamedTuple):
    """How a reader is written to. Those with the same manner may be level."""

    batch_writer: BatchWriter
    codec: Codec
    buffer_bytes_max: int
    """Bytes that may wait for one of them."""
    transport: TransportCounters
    """What counts what they are given."""

"""A handler that records announcements."""

from __future__ import annotations

from streamer.core.trace_context import TraceContext
from streamer.model import Entry, Log

__all__ = ["RecordingHandler"]


class RecordingHandler:
    """Records announcements in order. Fails on those that no test expects."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.offsets: dict[Log, list[int]] = {}
        self.reads: list[tuple[int, bytes]] = []
        """Version of the marks, and the announcement's body."""
        self.replaced: list[str] = []
        self.subscribed: list[Log] = []
        self.counted: list[Log] = []
        self._trace: TraceContext | None = None
        self.traces: list[TraceContext | None] = []
        """Those of `entries`."""
        self.ephemeral: list[tuple[bytes, TraceContext | None]] = []
        self.erased: list[Log] = []

    def on_trace(self, log: Log, entry: Entry | None, trace: TraceContext) -> None:
        self._trace = trace

    def on_entry(self, log: Log, entry: Entry) -> None:
        self.entries.append(entry)
        self.traces.append(self._trace)
        self._trace = None
        self.offsets.setdefault(log, []).append(entry.offset)

    def may_take(self) -> bool:
        return True

    def on_read(self, log: Log, *, marks: int, body: bytes) -> None:
        self.reads.append((marks, body))

    def on_replaced(self, log: Log, connection: str) -> None:
        self.replaced.append(connection)

    def on_ephemeral(self, log: Log, notification: bytes) -> None:
        self.ephemeral.append((notification, self._trace))
        self._trace = None

    def on_erased(self, log: Log) -> None:
        self.erased.append(log)

    def on_count_changed(self, log: Log) -> None:
        self.counted.append(log)

    def on_audiences_changed(self, log: Log) -> None:
        raise AssertionError

    def on_subscribed(self, log: Log) -> None:
        self.subscribed.append(log)

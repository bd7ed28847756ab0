"""
A load process: carries out one order at a time from a pipe, and returns the result.

Knows readers and senders. A result is ``("done", facts)`` or ``("failed", reason)``;
``("progress", count)`` may precede it.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from .engine import IN, Engine
from .readers import OpenPlan, Readers
from .resuming import UNLIMITED, ResumingPlan, ResumingReaders
from .senders import Sender, Template, send_by_timetable, send_in_windows

__all__ = ["main"]

PROGRESS_S = 0.2
GRACE_S = 10.0

Facts = dict[str, Any]


def main(pipe: Connection, cores: set[int]) -> None:
    """Carry out orders until the pipe is closed."""
    import os

    if cores:
        os.sched_setaffinity(0, cores)
    # Ten thousand readers and no cyclic garbage: a collection would only be a pause in
    # the middle of a measurement.
    gc.disable()
    worker = Worker(pipe)
    while True:
        try:
            name, order = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send(("done", getattr(worker, name)(**order)))
        except KeyboardInterrupt:
            return
        except Exception:
            pipe.send(("failed", traceback.format_exc()))


class Worker:
    """The orders, by name."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._reported_s = 0.0
        self.engine = Engine()
        self.readers = Readers(self.engine)
        self.resuming: ResumingReaders | None = None

    def open(self, plan: Facts) -> Facts:
        """Open readers; see `OpenPlan`."""
        with _Stopwatch() as stopwatch:
            opened = self.readers.open(OpenPlan(**plan), self._report_progress)
        return {**opened._asdict(), **stopwatch.facts()}

    def close(self) -> Facts:
        """Drop all readers."""
        closed = self.readers.received.closed
        self.readers.close()
        self.resuming = None
        gc.collect()
        return {"closed": closed}

    def rest(self, seconds: float) -> Facts:
        """Read for a time."""
        received = self.readers.received
        before_bytes = received.bytes
        self.engine.run(
            lambda: False, until_ns=time.monotonic_ns() + int(seconds * 1e9)
        )
        return {
            "open": len(self.readers.sockets),
            "closed": received.closed,
            "bytes": received.bytes - before_bytes,
        }

    def listen(self, seconds: float) -> Facts:
        """
        Read for a time.

        Ends earlier if the pipe has a number of messages and all of them have arrived.
        """
        received = self.readers.received
        before, before_bytes = received.messages, received.bytes
        del received.latency_ns[:]
        expected: list[int] = []
        self.engine.add(
            self._pipe.fileno(), IN, lambda: expected.append(self._pipe.recv())
        )
        with _Stopwatch() as stopwatch:
            self.engine.run(
                lambda: bool(expected) and received.messages - before >= expected[0],
                until_ns=time.monotonic_ns() + int((seconds + 2 * GRACE_S) * 1e9),
            )
        self.engine.remove(self._pipe.fileno())
        return {
            "received": received.messages - before,
            "bytes": received.bytes - before_bytes,
            "latency_ns": received.latency_ns,
            **stopwatch.facts(),
        }

    def publish(
        self,
        address: tuple[str, int],
        templates: list[list[bytes | str]],
        per_message: int,
        *,
        others: Sequence[tuple[str, int]] = (),
        players: int = 1,
        connections: int = 1,
        rate: float = 0,
        window: int = 0,
        seconds: float = 0,
        count: int = 10**9,
    ) -> Facts:
        """
        Publish, by timetable or in a window, and read until all messages have arrived.

        Args:
            address: The server to publish to.
            templates: Requests, in turn.
            per_message: Number of readers of this process that receive each message.
            others: Further nodes, which get requests in turn with the first.
            players: Number of players, in turn.
            connections: Number of connections to each node that carry requests.
            rate: Requests per second, by timetable; 0 means in a window.
            window: Requests whose messages have not arrived yet, at a time.
            seconds: Duration.
            count: Maximum number of requests.

        """
        received = self.readers.received
        before, before_bytes = received.messages, received.bytes
        del received.latency_ns[:]
        made = [Template(parts, players=players) for parts in templates]
        sender = Sender(self.engine, (address, *others), connections, made)

        def finished() -> int:
            if not per_message:
                return sender.answered
            return min(sender.answered, (received.messages - before) // per_message)

        with _Stopwatch() as stopwatch:
            if rate:
                planned = min(count, max(1, round(rate * seconds)))
                send_by_timetable(
                    self.engine,
                    sender,
                    rate=rate,
                    count=planned,
                    done=lambda: finished() >= planned,
                    grace_s=GRACE_S,
                    on_turn=lambda: self._report_progress(sender.sent),
                )
            else:
                send_in_windows(
                    self.engine,
                    sender,
                    window=window,
                    seconds=seconds,
                    count=count,
                    finished=finished,
                    on_turn=lambda: self._report_progress(sender.sent),
                )
        sender.close()
        return {
            "sent": sender.sent,
            "answered": sender.answered,
            "statuses": dict(sender.statuses),
            "failed": sender.failed,
            "refusal": sender.refusal.decode(errors="replace"),
            "received": received.messages - before,
            "bytes": received.bytes - before_bytes,
            "duration_us": sender.duration_us,
            "lag_us": sender.lag_us,
            "latency_ns": received.latency_ns,
            **stopwatch.facts(),
        }

    def settle(self, plan: Facts, expected: int, within_s: float) -> Facts:
        """Make resuming readers and connect them, a few at a time."""
        self.resuming = ResumingReaders(self.engine, ResumingPlan(**plan))
        return self._connect_all(expected, 0.0, within_s)

    def drop(self) -> Facts:
        """Reset the connections of all resuming readers at once."""
        assert self.resuming is not None
        self.resuming.drop()
        return self.resuming.facts()

    def connect_all(self, expected: int, spread_s: float, within_s: float) -> Facts:
        """Let resuming readers reconnect; wait until they are complete."""
        assert self.resuming is not None
        self.resuming.in_flight = UNLIMITED
        return self._connect_all(expected, spread_s, within_s)

    def _connect_all(self, expected: int, spread_s: float, within_s: float) -> Facts:
        resuming = self.resuming
        assert resuming is not None
        with _Stopwatch() as stopwatch:
            done = resuming.connect_all(
                expected,
                spread_s=spread_s,
                within_s=within_s,
                on_turn=lambda: self._report_progress(resuming.open),
            )
        duration_us = resuming.duration_us
        return {
            "done": done,
            "duration_us": duration_us,
            **resuming.facts(),
            **stopwatch.facts(),
        }

    def _report_progress(self, count: int) -> None:
        now_s = time.monotonic()
        if now_s - self._reported_s >= PROGRESS_S:
            self._reported_s = now_s
            self._pipe.send(("progress", count))


class _Stopwatch:
    """Measures the time and the own CPU time of a block."""

    def __enter__(self) -> _Stopwatch:
        self._wall_s = time.monotonic()
        self._cpu_s = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.monotonic() - self._wall_s
        self.cpu_s = time.process_time() - self._cpu_s

    def facts(self) -> Facts:
        return {"wall_s": self.wall_s, "load_cpu_s": self.cpu_s}

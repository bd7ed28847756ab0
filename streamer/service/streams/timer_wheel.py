"""
A timer wheel: one timer for all connections.

Decides in which tick an object is due. Knows the time that it is passed. Knows nothing
of what is done then. A tick touches only the objects that are due in it: to examine ten
thousand connections every second would delay all others by several milliseconds each
time.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

__all__ = ["TICK_S", "Timed", "TimerWheel"]

TICK_S: Final = 1.0
"""Seconds per tick."""


class Timed(Protocol):
    """An object on the wheel."""

    due: int
    """The tick in which it is due. Written by the wheel."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return the seconds until more is, None for never."""


class TimerWheel:
    """
    Timed objects by tick.

    Args:
        now_s: Monotonic time at which the first tick begins.

    """

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._tick_count = 0
        self._timed: dict[int, list[Timed]] = {}

    def add(self, timed: Timed, in_s: float = 0.0) -> None:
        """Make `timed` due in `in_s` only, in the next tick at the earliest."""
        due = self._tick_count + max(1, math.ceil(in_s / TICK_S))
        timed.due = due
        self._timed.setdefault(due, []).append(timed)

    def due_sooner(self, timed: Timed, in_s: float) -> None:
        """Make `timed` due in `in_s` if it is due later."""
        if timed.due > self._tick_count + math.ceil(in_s / TICK_S):
            self.add(timed, in_s)

    def advance(self, now_s: float, unix_s: float) -> None:
        """Tick every object that is due by now."""
        last = int((now_s - self._begun_s) / TICK_S)
        while self._tick_count < last:
            self._tick_count += 1
            for timed in self._timed.pop(self._tick_count, ()):
                # An object that was added again is due in another tick.
                if timed.due == self._tick_count:
                    self._tick(timed, now_s, unix_s)

    def _tick(self, timed: Timed, now_s: float, unix_s: float) -> None:
        in_s = timed.tick(now_s, unix_s)
        if in_s is not None:
            self.add(timed, in_s)

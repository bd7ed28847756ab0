"""
A wheel of turns: who wants to be looked at, and when.

Decides in which turn somebody is due. Knows the time it is given. Knows nothing of what
is done then. One timer serves everybody, and a turn touches those who are due in it and
nobody else: ten thousand readers looked at every second would hold up all others for
several milliseconds each time.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

__all__ = ["TICK_S", "Timed", "TimerWheel"]

TICK_S: Final = 1.0


class Timed(Protocol):
    """Somebody on the wheel."""

    due: int
    """The turn it is due in. Written by the wheel."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return in how many seconds more may be, None for never."""


class TimerWheel:
    """
    Riders by turn.

    Args:
        now_s: Monotonic time at which the first turn begins.

    """

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._tick_count = 0
        self._timed: dict[int, list[Timed]] = {}

    def add(self, timed: Timed, in_s: float = 0.0) -> None:
        """Let `timed` be due in `in_s`, not before the next turn, and only then."""
        turn = self._tick_count + max(1, math.ceil(in_s / TICK_S))
        timed.due = turn
        self._timed.setdefault(turn, []).append(timed)

    def due_sooner(self, timed: Timed, in_s: float) -> None:
        """Let `timed` be due in `in_s` if it were due later."""
        if timed.due > self._tick_count + math.ceil(in_s / TICK_S):
            self.add(timed, in_s)

    def advance(self, now_s: float, unix_s: float) -> None:
        """Tick all who have become due by now."""
        last = int((now_s - self._begun_s) / TICK_S)
        while self._tick_count < last:
            self._tick_count += 1
            for timed in self._timed.pop(self._tick_count, ()):
                # One that was added again is due at another time.
                if timed.due == self._tick_count:
                    self._tick(timed, now_s, unix_s)

    def _tick(self, timed: Timed, now_s: float, unix_s: float) -> None:
        in_s = timed.tick(now_s, unix_s)
        if in_s is not None:
            self.add(timed, in_s)

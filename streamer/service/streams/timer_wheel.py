"""
A timer wheel: one timer for all connections.

Decides in which tick an object is due. Knows the time that it is passed. Knows nothing
of what is done then. A tick touches only the objects that are due in it: to examine ten
thousand connections every second would delay all others by several milliseconds each
time. Ticks are shorter than a second, so that those that connected in one second are
not all due in one tick, and a caller may tick a part of the objects that are due, and
the others later.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import Final, Protocol

__all__ = ["TICKED_MAX", "TICK_S", "Timed", "TimerWheel"]

TICK_S: Final = 1 / 8
"""
Seconds per tick; a power of two, so that times are whole ticks without rounding.

With each tick a process wakes up, which with shorter ones took as long as their work.
"""

TICKED_MAX: Final = 200
"""Objects ticked per iteration of the event loop: about 3 ms if all send a ping."""


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
        tick_s: Seconds per tick.

    """

    def __init__(self, now_s: float, *, tick_s: float = TICK_S) -> None:
        self._begun_s = now_s
        self._tick_s = tick_s
        self._tick_count = 0
        self._timed: dict[int, list[Timed]] = {}
        self._due: deque[Timed] = deque()
        """What is left of the current tick."""

    def add(self, timed: Timed, in_s: float = 0.0) -> None:
        """Make `timed` due in `in_s` only, in the next tick at the earliest."""
        self._add_at(timed, self._tick_count + max(1, math.ceil(in_s / self._tick_s)))

    def due_sooner(self, timed: Timed, in_s: float) -> None:
        """Make `timed` due in `in_s` if it is due later."""
        if timed.due > self._tick_count + math.ceil(in_s / self._tick_s):
            self.add(timed, in_s)

    def advance(
        self, now_s: float, unix_s: float, *, ticked_max: int = sys.maxsize
    ) -> bool:
        """Tick what is due, `ticked_max` at most; return whether some is left."""
        last = int((now_s - self._begun_s) / self._tick_s)
        for _ in range(ticked_max):
            while not self._due:
                if self._tick_count >= last:
                    return False
                self._tick_count += 1
                self._due.extend(self._timed.pop(self._tick_count, ()))
            timed = self._due.popleft()
            # An object that was added again is due in another tick.
            if timed.due == self._tick_count:
                self._tick(timed, now_s, unix_s)
        return bool(self._due) or self._tick_count < last

    def _tick(self, timed: Timed, now_s: float, unix_s: float) -> None:
        in_s = timed.tick(now_s, unix_s)
        if in_s is not None:
            # From now on. From the begin of this tick it would come too early, and for
            # that once more.
            due = math.ceil((now_s - self._begun_s + in_s) / self._tick_s)
            self._add_at(timed, max(due, self._tick_count + 1))

    def _add_at(self, timed: Timed, due: int) -> None:
        timed.due = due
        self._timed.setdefault(due, []).append(timed)

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

__all__ = ["TURN_S", "Rider", "Wheel"]

TURN_S: Final = 1.0


class Rider(Protocol):
    """Somebody on the wheel."""

    due: int
    """The turn it is due in. Written by the wheel."""

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Do what is due; return in how many seconds more may be, None for never."""


class Wheel:
    """
    Riders by turn.

    Args:
        now_s: Monotonic time at which the first turn begins.

    """

    def __init__(self, now_s: float) -> None:
        self._begun_s = now_s
        self._turn = 0
        self._riders: dict[int, list[Rider]] = {}

    def add(self, rider: Rider, in_s: float = 0.0) -> None:
        """Let `rider` be due in `in_s`, not before the next turn, and only then."""
        turn = self._turn + max(1, math.ceil(in_s / TURN_S))
        rider.due = turn
        self._riders.setdefault(turn, []).append(rider)

    def hasten(self, rider: Rider, in_s: float) -> None:
        """Let `rider` be due in `in_s` if it were due later."""
        if rider.due > self._turn + math.ceil(in_s / TURN_S):
            self.add(rider, in_s)

    def turn(self, now_s: float, unix_s: float) -> None:
        """Tick all who have become due by now."""
        last = int((now_s - self._begun_s) / TURN_S)
        while self._turn < last:
            self._turn += 1
            for rider in self._riders.pop(self._turn, ()):
                # One that was added again is due at another time.
                if rider.due == self._turn:
                    self._tick(rider, now_s, unix_s)

    def _tick(self, rider: Rider, now_s: float, unix_s: float) -> None:
        in_s = rider.tick(now_s, unix_s)
        if in_s is not None:
            self.add(rider, in_s)

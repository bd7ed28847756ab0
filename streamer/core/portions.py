"""
Work in portions: no turn of the event loop does more than its share.

Decides how much of the work is done now and what waits for the next turn. Knows work as
steps whose cost is known before they are made. Knows nothing of what a step does, nor
of event loops: its owner calls `begin_turn` in a later turn.

One event for ten thousand readers takes a hundred milliseconds of CPU. While it is
written without a pause, nothing else is served. So it is written in steps, and other
work has its turns in between. Whatever is added is done in the order in which it was
added, and one piece of work ends before the next begins.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["RESERVED", "Portions", "Steps"]

RESERVED: Final = 5
"""One part in so many of a turn that waiting work leaves to `take`."""

Steps = Iterator[int]
"""
Work in steps. Each value is the cost of the step that follows it; the work ends instead
of a value. A step that costs more than a turn has is the only one of its turn.
"""


class Portions:
    """
    Work that is done in order, as much in a turn as a turn has.

    The unit of cost is one write of an event that is the same for many readers.

    Args:
        per_turn: How much may be done in a turn.
        waiting_max: How much work may wait before `take` refuses any.
        on_unfinished: Called when something has to wait for another turn: the owner
            has to call `begin_turn` then.
        on_error: Called with the error of a piece of work, which ends that piece. By
            default it is raised where the step was made: by whoever has added something
            else, perhaps.

    """

    def __init__(
        self,
        per_turn: int = sys.maxsize,
        *,
        waiting_max: int = 16,
        on_unfinished: Callable[[], None] = lambda: None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._per_turn = self._left = per_turn
        self._waiting_max = waiting_max
        self._on_unfinished = on_unfinished
        self._on_error = on_error
        self._work: deque[Steps] = deque()
        """What is unfinished. It begins when what was added before has ended."""
        self._cost: int | None = None
        """The cost of the next step, None if that is not known yet."""
        self._is_working = False

    def __len__(self) -> int:
        return len(self._work)

    def add(self, steps: Steps) -> None:
        """Do work after all that was added before, as much of it now as possible."""
        self._work.append(steps)
        self.go_on()

    def take(self, cost: int) -> bool:
        """
        Return whether something else of this cost may be done in this turn.

        Unfinished work leaves a part of each turn to this. If too much work waits,
        nothing else may be done, since it could add more.
        """
        keeps = self._per_turn - self._per_turn // RESERVED if self._work else 0
        if len(self._work) < self._waiting_max and self._left - cost >= keeps:
            self._left -= cost
            return True
        self._on_unfinished()
        return False

    def begin_turn(self) -> None:
        """Note that a turn of the event loop has begun; `go_on` does its share."""
        self._left = self._per_turn

    def go_on(self) -> None:
        """Do as much of the work as the turn has left."""
        if self._is_working:
            return  # A step has added work, which follows.
        self._is_working = True
        try:
            while self._work and self._has_room():
                self._step()
        finally:
            self._is_working = False
            if self._work:
                self._on_unfinished()

    def _has_room(self) -> bool:
        if self._cost is None or self._cost <= self._left:
            return True
        # A step that is larger than a turn has one to itself.
        return self._left == self._per_turn

    def _step(self) -> None:
        """Do the step whose cost is known, and find out the cost of the next one."""
        self._left -= self._cost or 0
        try:
            self._cost = next(self._work[0], None)
        except BaseException as error:
            # An error in one piece of work must not stop the others.
            self._end()
            if self._on_error is None or not isinstance(error, Exception):
                raise
            self._on_error(error)
            return
        if self._cost is None:
            self._end()

    def _end(self) -> None:
        self._work.popleft()
        self._cost = None

"""
Ends of connections, as many in a turn of the event loop as it has room for.

Decides which are dealt with now and which wait for a later turn. Knows steps. Knows
nothing of what a step does.

When a proxy or a network fails, thousands of connections end in one turn of the event
loop. Each end takes a few dozen µs, and nothing else is served while they last.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["PER_TURN", "Departures"]

PER_TURN: Final = 64
"""Ends in a turn: about 4 ms with the log lines of streams."""

_logger = logging.getLogger(__name__)


class Departures:
    """
    Steps in the order in which they came, so many in a turn.

    Args:
        per_turn: How many steps there may be in a turn.

    """

    def __init__(self, per_turn: int = PER_TURN) -> None:
        self._per_turn = self._left = per_turn
        self._waiting: deque[Callable[[], object]] = deque()
        self._turn_is_due = False

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> bool:
        """Return whether the caller may make a step now; if so, count it."""
        if self._waiting or self._left <= 0:
            return False
        self._left -= 1
        self._need_turn()
        return True

    def add(self, step: Callable[[], object]) -> None:
        """Make a step in a later turn, after those that were added before."""
        self._waiting.append(step)
        self._need_turn()

    def do(self, step: Callable[[], object]) -> None:
        """Make a step now if this turn has room, otherwise in a later one."""
        if self.take():
            step()
        else:
            self.add(step)

    def finish(self) -> None:
        """Make all steps that wait. From here on none waits."""
        self._per_turn = self._left = sys.maxsize
        self._go_on()

    def _need_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._turn_is_due = False
        self._left = self._per_turn
        self._go_on()
        if self._left < self._per_turn:
            # More may come in this turn. The next one has room again.
            self._need_turn()

    def _go_on(self) -> None:
        while self._waiting and self._left > 0:
            self._left -= 1
            step = self._waiting.popleft()
            try:
                step()
            except Exception:  # Of this connection; the others have to end, too.
                _logger.exception("could not complete the end of a connection")

"""
Reports faults of the store to the operator.

Decides what is logged of a store that is unreachable or refuses commands, how often,
and why the node is not ready meanwhile. Knows the parts of the process that use the
store by their names only.

A fault is reported by every part that meets it, and by each many times. It is logged
once, repeated once a minute while it lasts, and logged again when it is over::

    ERROR    the store at db:6379 is unavailable: Connection refused
    WARNING  the store at db:6379 serves again, after 12 s

A part that failed stays faulty until it has succeeded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from redis.exceptions import ResponseError

from ...errors import Unavailable

__all__ = ["STORE_FAILURES", "Attempts", "StoreFaults"]

STORE_FAILURES: Final = (Unavailable, ResponseError)
"""What a call of the store may raise. No background task may end of it."""

REPEAT_S: Final = 60.0
"""The interval in which a fault that lasts is logged again."""

CHANGE_S: Final = 10.0
"""How soon another reason is logged: a store that restarts has several in turn."""

CLEAR_S: Final = 2.0
"""How long the store has to serve before the fault is over: it may come and go."""

CONNECTION: Final = "connection"
"""The part that `StoreFaults.unavailable` reports."""

_logger = logging.getLogger(__name__)


class StoreFaults:
    """
    What fails at present.

    Args:
        where: The address of the store, for the log.
        clock_s: A monotonic clock.

    """

    def __init__(
        self, where: str = "", *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.where = where
        self._clock_s = clock_s
        self.forbidden = 0
        """Number of commands that the store forbade, on any connection."""
        self.forbidden_words = ""
        """What the store said of the last of them."""
        self._problems: dict[str, str] = {}
        self._partial: set[str] = set()
        """Parts whose problem leaves the node ready."""
        self._told = ""
        self._told_at_s = float("-inf")
        self._begun_at_s = self._failed_at_s = float("-inf")

    @property
    def reason(self) -> str | None:
        """Why the node is not ready, without the store's address; None if it is."""
        problem = next(
            (it for part, it in self._problems.items() if part not in self._partial),
            None,
        )
        return None if problem is None else f"the store {problem}"

    def is_failing(self, part: str = CONNECTION) -> bool:
        """Whether a part has failed and not succeeded since."""
        return part in self._problems

    def unavailable(self, words: str) -> None:
        """Report that the store is unreachable, or takes no commands at present."""
        self.failed(CONNECTION, f"is unavailable: {words}")

    def note_forbidden(self, words: str) -> None:
        """
        Note that the store forbids a command.

        That is no fault yet: the command may be optional. A check follows.
        """
        self.forbidden += 1
        self.forbidden_words = words

    def refused(self, part: str, error: Exception) -> None:
        """
        Report an error of `STORE_FAILURES` that a part of the process got.

        One that concerns the whole store is reported by the connection already.
        """
        if not isinstance(error, Unavailable):
            self.failed(part, f"refused a command of the {part}: {error}")

    def attempts(self, part: str, *, wait_s: tuple[float, float] = (0, 0)) -> Attempts:
        """
        Return what reports the attempts of a part that never gives up.

        Args:
            part: The name of the part.
            wait_s: The first and the longest wait after an attempt that failed. Waits
                double while attempts fail, and are up to a half shorter at random.

        """
        return Attempts(self, part, wait_s)

    def failed(self, part: str, problem: str, *, partial: bool = False) -> None:
        """
        Report a problem of a part, as the predicate of "the store".

        With `partial` it concerns a part of the store, and leaves the node ready.
        """
        now_s = self._clock_s()
        if not self._told:
            self._begun_at_s = now_s
        self._failed_at_s = now_s
        self._problems[part] = problem
        if partial:
            self._partial.add(part)
        else:
            self._partial.discard(part)
        # The first problem stays the reason while it lasts; others follow from it.
        problem = next(iter(self._problems.values()))
        since_s = now_s - self._told_at_s
        is_news = problem != self._told and (not self._told or since_s >= CHANGE_S)
        if is_news or since_s >= REPEAT_S:
            self._told, self._told_at_s = problem, now_s
            _logger.error("the store%s %s", self._at, problem)

    def passed(self, part: str = CONNECTION) -> None:
        """Report that a part has succeeded."""
        self._problems.pop(part, None)

    def tell_recovery(self) -> None:
        """Log that the fault is over, once it has been for `CLEAR_S`."""
        now_s = self._clock_s()
        if not self._told or self._problems or now_s - self._failed_at_s < CLEAR_S:
            return
        lasted_s = self._failed_at_s - self._begun_at_s
        _logger.warning("the store%s serves again, after %.0f s", self._at, lasted_s)
        self._told, self._told_at_s = "", float("-inf")

    @property
    def _at(self) -> str:
        return f" at {self.where}" if self.where else ""


class Attempts:
    """
    The attempts of a part that repeats something forever, made by `StoreFaults`.

    Each attempt is the body of an ``async with``. An error of `STORE_FAILURES` in it is
    reported and ends there, after a wait. Other errors are raised::

        while True:
            async with attempts:
                await do()
            await asyncio.sleep(RETRY_S if attempts.failing else INTERVAL_S)

    """

    def __init__(
        self, faults: StoreFaults, part: str, wait_s: tuple[float, float]
    ) -> None:
        self._faults = faults
        self._part = part
        self._low_s, self._high_s = wait_s
        self._wait_s = self._low_s
        self.failing = False
        """Whether the last attempt has failed."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, STORE_FAILURES):
            self.failing = True
            self._faults.refused(self._part, error)
            wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, self._high_s)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            return True
        if error is None:
            self.failing, self._wait_s = False, self._low_s
            self._faults.passed(self._part)
        return False

"""
The watchdog: how late the event loop is.

Decides how the lag is measured and when it is logged. Knows the loop and the clocks.
Knows nothing of what made it late.

While a turn of the loop lasts, no request is served and no notification is delivered.
So a timer is set ten times a second, and how late it fires is what anything else that
arrived at that moment had to wait. A lag may have two causes, which need different
measures: a turn that was too long, or a machine that had no CPU for this process. The
CPU time of the loop's thread tells them apart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from ...core.counters import Histogram

__all__ = ["INTERVAL_S", "LoopLag"]

INTERVAL_S: Final = 0.1
"""How often the lag is measured."""

QUIET_S: Final = 60.0
"""How often a lag is logged, at most."""

_logger = logging.getLogger(__name__)


class LoopLag:
    """
    Measures the lag of this process's event loop.

    Args:
        lag_s: Histogram of the lags, in seconds.
        logged_ms: A larger lag is logged; 0 for never.
        clock_s: Returns monotonic time.
        cpu_s: Returns the CPU time of this thread.

    """

    def __init__(
        self,
        lag_s: Histogram,
        *,
        logged_ms: int,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._lag_s = lag_s
        self._logged_s = logged_ms / 1_000
        self._clock_s = clock_s
        self._cpu_s = cpu_s
        self._logged_at_s = float("-inf")
        self._unlogged = 0
        """Lags above the bound that have not been logged."""
        self._longest = 0.0, 0.0
        """The longest of them, and the CPU time in it."""

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            began_s, cpu_s = self._clock_s(), self._cpu_s()
            await asyncio.sleep(INTERVAL_S)
            late_s = self._clock_s() - began_s - INTERVAL_S
            self.note(late_s, self._cpu_s() - cpu_s)

    def note(self, late_s: float, cpu_s: float) -> None:
        """Note that a timer has fired so late, with so much CPU used since it was set.

        Logs the longest lag of the last `QUIET_S` that is above the bound.
        """
        self._lag_s.observe(late_s)
        if self._logged_s and late_s > self._logged_s:
            self._unlogged += 1
            self._longest = max(self._longest, (late_s, min(cpu_s, late_s)))
        now_s = self._clock_s()
        if self._unlogged and now_s - self._logged_at_s >= QUIET_S:
            self._log()
            self._logged_at_s = now_s

    def _log(self) -> None:
        late_s, cpu_s = self._longest
        times = "" if self._unlogged == 1 else f" ({self._unlogged} times)"
        _logger.warning(
            "the event loop was %.0f ms late, more than %.0f ms%s: this process "
            "worked for %.0f ms of that and waited for the CPU for the rest",
            late_s * 1_000,
            self._logged_s * 1_000,
            times,
            cpu_s * 1_000,
        )
        self._unlogged, self._longest = 0, (0.0, 0.0)

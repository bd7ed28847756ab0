"""
The settings that all logs of a store share: retention, size and clock.

Decides the defaults. Every script that works on a log takes these values, so one object
is built at startup and passed to whatever reads or writes logs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["DAY_MS", "DEFAULTS", "LogSettings"]

DAY_MS: Final = 86_400_000


class LogSettings(NamedTuple):
    """How long a log keeps its entries, how many, and by which clock."""

    retention_ms: int = 90 * DAY_MS
    """Age at which an entry leaves the log."""
    entries_max: int = 10_000
    """Entries kept per log. Beyond that the oldest leave."""
    clock_us: Callable[[], int] = lambda: 0
    """
    Returns the time to use, Unix time in microseconds. 0 stands for the store's own
    clock, on which several nodes agree; tests pass a clock of their own.
    """

    def script_args(self) -> tuple[int, int]:
        """
        Return the arguments that every script with ``lua/logs/_inbox`` takes first.
        """
        return self.retention_ms, self.clock_us()

    def clock_ms(self) -> int:
        """Return the time to use in Unix ms, or 0; see `clock_us`."""
        return self.clock_us() // 1_000


DEFAULTS: Final = LogSettings()

"""A time that stands still until a test moves it, where the store's own would go on."""

from __future__ import annotations

__all__ = ["NOON", "NOON_US", "Clock"]

NOON = 1_800_000_000_000
"""When a test begins, in Unix ms."""

NOON_US = NOON * 1_000


class Clock:
    """The store's time as far as scripts are told, in microseconds."""

    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us

    @property
    def now_ms(self) -> int:
        """The same in ms. Setting it sets a whole number of ms."""
        return self.now_us // 1_000

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self.now_us = now_ms * 1_000

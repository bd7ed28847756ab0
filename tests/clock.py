"""A time that stands still until a test moves it, where the store's own would go on."""

from __future__ import annotations

__all__ = ["NOON", "Clock"]

NOON = 1_800_000_000_000
"""When a test begins, in Unix ms."""


class Clock:
    """The store's time, in Unix ms, as far as scripts are told."""

    def __init__(self) -> None:
        self.now_ms = NOON

    def __call__(self) -> int:
        return self.now_ms

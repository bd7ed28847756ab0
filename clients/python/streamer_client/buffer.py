"""
What was read ahead of the consumer, bounded in number and in bytes.

Decides when the producer has to wait. Knows nothing of what is in it. One producer,
one consumer; cancelling either of them loses nothing.

Somebody who waits for an answer on the same connection may be the consumer itself, who
then takes nothing until the answer has been read. So there is a second, higher limit,
up to which reading goes on as long as somebody waits; where that is reached as well,
the answers are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

__all__ = ["Buffer"]

BYTES_MAX: Final = 4 * 2**20
EXTENDED_BYTES_MAX: Final = 16 * 2**20
EXTRA_ITEMS_MAX: Final = 1_024
"""Further items while an answer is waited for: more than a server replays (500)."""

_T = TypeVar("_T")


class Buffer(Generic[_T]):
    """
    A queue of items with their sizes; at least one fits, whatever it weighs.

    Args:
        items_max: Items to hold.
        on_overflow: Called when it is full beyond the stretch; no answer will come.

    Raises:
        ValueError: `items_max` allows no item.
    """

    def __init__(self, items_max: int, on_overflow: Callable[[], None]) -> None:
        if items_max < 1:
            raise ValueError(f"buffer_max is {items_max}, allowed from 1")
        self._items_max = items_max
        self._on_overflow = on_overflow
        self._items: deque[tuple[_T, int]] = deque()
        self._bytes = 0
        self._waiter_count = 0
        self._not_empty = asyncio.Event()
        self._not_full = asyncio.Event()

    @contextlib.contextmanager
    def extend(self) -> Iterator[None]:
        """Let the producer go on, for an answer that may be behind what is held."""
        self._waiter_count += 1
        self._not_full.set()
        try:
            yield
        finally:
            self._waiter_count -= 1

    async def put(self, item: _T, size: int = 0) -> None:
        """Add `item` as soon as there is room."""
        while self._is_full():
            self._not_full.clear()
            await self._not_full.wait()
        self._items.append((item, size))
        self._bytes += size
        self._not_empty.set()

    async def take(self) -> _T:
        """Remove the oldest item, or wait for one."""
        while not self._items:
            self._not_empty.clear()
            await self._not_empty.wait()
        item, size = self._items.popleft()
        self._bytes -= size
        self._not_full.set()
        return item

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()
        self._bytes = 0
        self._not_full.set()

    def _is_full(self) -> bool:
        if not self._exceeds(self._items_max, BYTES_MAX):
            return False
        if not self._waiter_count:
            return True
        if not self._exceeds(self._items_max + EXTRA_ITEMS_MAX, EXTENDED_BYTES_MAX):
            return False
        self._on_overflow()
        return True

    def _exceeds(self, items: int, size: int) -> bool:
        return len(self._items) >= items or (bool(self._items) and self._bytes >= size)

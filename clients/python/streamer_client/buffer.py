"""
A bounded queue between the reader of a connection and the consumer of a stream.

Decides when the producer must wait. Knows nothing of its items. One producer, one
consumer; cancelling either of them loses nothing.

The consumer itself may wait for the result of a command on the same connection. It
takes no items until the result has been read, so the producer must read on although the
queue is full. While somebody waits for a result, a second, higher limit holds; when
that is reached as well, the pending commands fail.
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
"""Further items while a result is pending: more than a server replays (500)."""

_T = TypeVar("_T")


class Buffer(Generic[_T]):
    """
    A queue of items with their sizes in bytes; one item fits, whatever its size.

    Args:
        items_max: Items to hold.
        on_overflow: Called when the higher limit is reached; no result can be read.

    Raises:
        ValueError: `items_max` is less than 1.
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
        """Let the producer use the higher limit, to reach a pending result."""
        self._waiter_count += 1
        self._not_full.set()
        try:
            yield
        finally:
            self._waiter_count -= 1

    async def put(self, item: _T, size: int = 0) -> None:
        """Add `item` when there is room for it."""
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

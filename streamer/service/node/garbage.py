"""
When this process collects cyclic garbage.

Decides which objects the collector visits, and when it visits all of them. Knows the
collector, and how many connections are open. Knows nothing of what the objects are.

A connection is a few dozen objects that live for hours. A collection of all generations
visits them all, in one turn of the event loop: 100 ms with ten thousand connections. So
the generations are small, and what survives the second one is frozen: no collection
visits it any more. Freezing costs nothing, whatever the number of objects.

What is frozen is freed as usual when nothing refers to it. Only a *cycle* among frozen
objects stays. There are hardly any, since a stream that ends breaks its own. What there
is shows as blocks of memory that the open connections do not explain (the interpreter
counts its blocks at once; to count frozen objects takes as long as to visit them), and
is collected by a full collection:

* when no connection has been open for a while, so that nobody waits, and what the last
  ones have left behind is gone;
* otherwise when it is so much that memory counts for more than one long turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

__all__ = ["BLOCKS_PER_CONNECTION", "Garbage"]

THRESHOLDS: Final = (1_500, 3, 1_000)
"""
Arguments of `gc.set_threshold`.

A collection of the second generation visits at most 7,500 objects: 2 to 8 ms, since
most of them are in no cache. The third one is empty.
"""

BLOCKS_PER_CONNECTION: Final = 60
"""Blocks of memory that an open connection explains; a WebSocket has about 36."""

UNEXPLAINED_MAX: Final = 1_000_000
"""Blocks without an explanation that are too many: about 100 MiB."""

UNEXPLAINED_QUIET_MAX: Final = 50_000
"""The same while no connection is open."""

LOOK_S: Final = 10.0
"""How often to look at the number of blocks."""

_logger = logging.getLogger(__name__)


class Garbage:
    """
    The policy of this process's collector, between `begin` and `end`.

    Args:
        connections: Returns the number of open connections.

    """

    def __init__(self, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._left = 0
        """Blocks that the last full collection has left, without connections."""
        self._thresholds_before: tuple[int, int, int] | None = None
        self._was_quiet = True
        """Whether no connection was open at the last look."""

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """Apply the policy in the block."""
        self.begin()
        looking = asyncio.create_task(self._look(), name="garbage")
        try:
            yield
        finally:
            self.end()
            looking.cancel()
            await asyncio.wait([looking])

    def begin(self) -> None:
        """Freeze all objects that exist, and those that will turn out to live on."""
        self._thresholds_before = gc.get_threshold()
        self.collect_all()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self._on_collection)

    def end(self) -> None:
        """Let the collector do as it did before."""
        gc.callbacks.remove(self._on_collection)
        gc.unfreeze()
        if self._thresholds_before is not None:
            gc.set_threshold(*self._thresholds_before)

    def collect_all(self) -> int:
        """
        Collect what is garbage among all objects; freeze the others.

        Returns how many were garbage.
        """
        gc.unfreeze()
        collected = gc.collect()
        gc.freeze()
        explained = self._connections() * BLOCKS_PER_CONNECTION
        self._left = max(0, sys.getallocatedblocks() - explained)
        return collected

    @property
    def unexplained(self) -> int:
        """The number of blocks that open connections do not explain."""
        explained = self._connections() * BLOCKS_PER_CONNECTION
        return sys.getallocatedblocks() - self._left - explained

    @property
    def is_due(self) -> bool:
        """Whether a full collection is due."""
        is_quiet = self._connections() == 0
        allowed = UNEXPLAINED_QUIET_MAX if is_quiet else UNEXPLAINED_MAX
        return self.unexplained > allowed

    def look(self) -> bool:
        """Return whether to collect all now; to be called every `LOOK_S`."""
        was_quiet, self._was_quiet = self._was_quiet, self._connections() == 0
        if self._was_quiet and not was_quiet:
            # Leases are being released and channels left: that is no garbage.
            return False
        return self.is_due

    def _on_collection(self, phase: str, facts: dict[str, Any]) -> None:
        if phase == "stop" and facts["generation"] > 0:
            gc.freeze()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self.look():
                collected = self.collect_all()
                _logger.debug("collected %d objects that were garbage", collected)

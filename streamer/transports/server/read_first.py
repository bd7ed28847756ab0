"""
Time limits of clients, and a process that stood still.

Decides that what has arrived is read before a client's time is over. An event loop may
stand still for a second, because it computed or because its machine had no CPU for it.
uvloop then runs the timers that are due before it reads, and to them a client that has
sent its request in time looks silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["call_after_reading"]


def call_after_reading(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object
) -> None:
    """
    Call `callback` after the loop has read what has arrived by now.

    A call from a timer comes before the reads of this iteration, and one that comes
    from such a call comes after them.
    """
    loop.call_soon(loop.call_soon, callback, *args)

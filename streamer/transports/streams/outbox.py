"""
What a stream has been given and has not sent yet.

Decides nothing: the session has decided that an event fits before it comes here. Knows
how many bytes wait, since when, and whether the stream is to end. It is for servers
that do not let go of their connections: there the synchronous fan-out meets a `send`
that has to be waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from ...core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from ...errors import Disconnect

__all__ = ["Outbox"]


class Outbox:
    """
    A session's sink; its other end is `pump`.

    Args:
        on_waiting: Called when something begins to wait.

    """

    batch_writer: BatchWriter = ONE_BY_ONE

    def __init__(self, on_waiting: Callable[[], None] = lambda: None) -> None:
        self._on_waiting = on_waiting
        self._events: list[bytes] = []
        self._bytes = 0
        self._sending = 0
        self._since_s: float | None = None
        self._wake = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self.closing: Disconnect | None = None
        """Why the stream ends, once it does."""

    def write(self, event: bytes, most: int) -> bool:
        if self.closing is not None:
            return True  # It goes nowhere any more, which is not for want of room.
        waiting = self.buffered()
        if waiting and waiting + len(event) > most:
            return False
        self._events.append(event)
        self._bytes += len(event)
        if self._since_s is None:
            self._since_s = monotonic()
            self._on_waiting()
        self._wake.set()
        return True

    def buffered(self) -> int:
        # What is being sent may be with the connection already, or still here.
        return self._bytes + self._sending

    def waiting_since_s(self) -> float | None:
        return self._since_s

    def close(self, disconnect: Disconnect) -> None:
        if self.closing is None:
            self.closing = disconnect
            self._wake.set()

    def abort(self, disconnect: Disconnect) -> None:
        self._events.clear()
        self._bytes = self._sending = 0
        self.close(disconnect)
        if self._pumping is not None:
            self._pumping.cancel()

    def pump(
        self, send: Callable[[list[bytes]], Awaitable[None]]
    ) -> asyncio.Task[None]:
        """
        Start sending what comes in, all that waits at a time.

        The task ends when `close` was called and everything before it is sent, or at
        once after `abort`, also out of a send that is stuck. Whoever starts it has to
        cancel it.
        """
        self._pumping = asyncio.create_task(self._pump(send), name="outbox")
        return self._pumping

    async def _pump(self, send: Callable[[list[bytes]], Awaitable[None]]) -> None:
        while self._events or self.closing is None:
            if not self._events:
                await self._wake.wait()
                self._wake.clear()
                continue
            events, self._events = self._events, []
            self._sending, self._bytes = self._bytes, 0
            await send(events)
            self._sending = 0
            self._since_s = monotonic() if self._events else None

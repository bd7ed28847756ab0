"""
When entries of the followed logs expire, so that unread counts follow at once.

Decides when a log is looked at because one of its entries may have expired. Knows the
hub, and how the logs' states are read. Knows nothing of counts.

Nothing announces that an entry expires. So the time at which the next entry of each log
expires is kept here, once per log and node, however many readers the log has. It comes
with each read of the log and each check of its head, and from the announced entries
themselves. When it has come, the log is read, which ends what has expired, and the
streams that count its entries are told (`Hub.note_ended`).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final

from ...core.schedule import parse_time
from ...errors import Unavailable
from ...hub import Hub
from ...model import Entry, Log
from ...store.client.faults import StoreFaults
from ...store.logs.inbox import Inbox

__all__ = ["Expiries"]

BATCH: Final = 100
"""Logs looked at in one packet."""

LOOK_S: Final = 10.0
"""How often to compare this machine's clock with the store's, at least."""

REFUSED_MS: Final = 10_000
"""When to look again at a log that cannot be read."""

AGAIN_MS: Final = 200
"""When to look again at a log whose entry should have expired and has not."""

KEPT_MIN: Final = 10_000
"""Times that are kept before any are forgotten."""

RETRY_S: Final = 1.0
"""How soon to try again while the store is unavailable."""

PART: Final = "expiries"
"""The name of this part in `StoreFaults`."""

_EXPIRES_AT: Final = b'"expires_at":"'


class Expiries:
    """
    The next expiry of each followed log.

    Args:
        hub: The readers.
        inbox: The logs.
        faults: Told of what the store refuses.

    """

    def __init__(
        self, hub: Hub, inbox: Inbox, *, faults: StoreFaults | None = None
    ) -> None:
        self._faults = faults or StoreFaults()
        self._hub = hub
        self._inbox = inbox
        self._next_ms: dict[Log, int] = {}
        """When the next entry of a log expires, by the store's clock."""
        self._due: list[tuple[int, Log]] = []
        """A heap of the same times, and of earlier ones that do not count any more."""
        self._earlier = asyncio.Event()
        """Set when a time is noted that is earlier than all others."""
        self._ahead_ms = 0.0
        """How far the store's clock is ahead of this machine's."""
        self._forget_at = KEPT_MIN
        """The size of the heap at which logs without followers are forgotten."""

    def note_entry(self, log: Log, entry: Entry) -> None:
        """Note when an announced entry expires, if it does."""
        # A search per entry, whoever reads it. A notification whose data contains these
        # bytes costs one look at its log.
        at = entry.fragment.rfind(_EXPIRES_AT)
        if at >= 0:
            text, _, _ = entry.fragment[at + len(_EXPIRES_AT) :].partition(b'"')
            self.note(log, parse_time(text.decode()) or 0)

    def note(self, log: Log, at_ms: int) -> None:
        """Note that an entry of a log expires at `at_ms`, 0 for none."""
        if at_ms and at_ms < self._next_ms.get(log, at_ms + 1) and log in self._hub:
            self._next_ms[log] = at_ms
            heapq.heappush(self._due, (at_ms, log))
            if self._due[0][1] is log:
                self._earlier.set()

    async def run(self) -> None:
        """Look at logs when they are due, until cancelled."""
        attempts = self._faults.attempts(PART, wait_s=(RETRY_S, RETRY_S))
        while True:
            self._earlier.clear()
            if not self._due:
                await self._earlier.wait()
                continue
            in_s = (self._due[0][0] - self._ahead_ms) / 1_000 - time.time()
            if in_s > 0 and await self._wait(min(in_s, LOOK_S)):
                continue
            async with attempts:
                await self.check_due()

    async def check_due(self) -> None:
        """
        Look at the logs that are due by the store's clock.

        Raises:
            Unavailable: The store is unavailable; the logs remain due.

        """
        now_ms = await self._inbox.now_ms()
        self._ahead_ms = now_ms - time.time() * 1_000
        while self._due and self._due[0][0] <= now_ms:
            await self._look_at(self._take_due(now_ms), now_ms)
        if len(self._due) > self._forget_at:
            self._forget()

    def _forget(self) -> None:
        """Forget logs that nobody follows, and times that do not count any more."""
        self._next_ms = {
            log: ms for log, ms in self._next_ms.items() if log in self._hub
        }
        self._due = [(ms, log) for log, ms in self._next_ms.items()]
        heapq.heapify(self._due)
        self._forget_at = max(KEPT_MIN, 2 * len(self._due))

    async def _wait(self, seconds: float) -> bool:
        """Wait; return whether an earlier time was noted meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._earlier.wait()
        except TimeoutError:
            return False
        return True

    def _take_due(self, now_ms: int) -> dict[Log, int]:
        """Return up to `BATCH` followed logs that are due, and when they were."""
        due: dict[Log, int] = {}
        while self._due and self._due[0][0] <= now_ms and len(due) < BATCH:
            at_ms, log = heapq.heappop(self._due)
            if self._next_ms.get(log) == at_ms:
                del self._next_ms[log]
                if log in self._hub:
                    due[log] = at_ms
        return due

    async def _look_at(self, due: dict[Log, int], now_ms: int) -> None:
        logs = list(due)
        try:
            # The first ends what has expired, the second says what expires next.
            await self._inbox.audiences_each(logs)
            peeks = await self._inbox.peek(logs)
        except Unavailable:
            for log, at_ms in due.items():
                self.note(log, at_ms)
            raise
        for log, peek in zip(logs, peeks, strict=True):
            if isinstance(peek, Exception):
                self.note(log, now_ms + REFUSED_MS)
            elif peek.ends_at_ms and peek.ends_at_ms <= now_ms:
                self.note(log, max(peek.ends_at_ms, now_ms + AGAIN_MS))
            else:
                self.note(log, peek.ends_at_ms)
                self._hub.note_ended(log)

"""
The periodic comparison of readers' positions with their logs.

Decides which logs are read although nothing was announced. Knows the hub, and how a
log is peeked at. Knows nothing of what a read returns.

Announcements are delivered at most once, and nothing reveals the loss of the last one.
So the head of each log is compared with the positions of its readers once in a while.
The comparison takes one plain command, where a read takes a script and a dozen objects.
Only a log whose readers are not in sync is read; and so is, now and then, one whose
readers are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from ...errors import Unavailable
from ...hub import Hub
from ...model import Log
from ...store.client.faults import StoreFaults
from ...store.logs.inbox import Inbox, Peek
from .expiries import Expiries

__all__ = ["READ_EVERY", "PositionCheck"]

BATCH: Final = 100
"""Peeks in one packet."""

READ_EVERY: Final = 64
"""One of so many checks of a log is a read: a peek does not show trimmed entries."""


PART: Final = "position check"
"""The name of this part in `StoreFaults`."""


class PositionCheck:
    """
    Checks the positions of all readers of a hub.

    Args:
        hub: The readers.
        inbox: The logs.
        expiries: Is told when entries of the logs will expire.
        check_s: How often each log is checked.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        hub: Hub,
        inbox: Inbox,
        expiries: Expiries,
        *,
        check_s: int,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._hub = hub
        self._inbox = inbox
        self._expiries = expiries
        self._check_s = check_s
        self._second = 0
        self._slots: list[list[Log]] = []
        """This round's logs, by the second of the round in which they are checked."""
        self._ended: dict[Log, int] = {}
        """Entries that had ended at the last check, for logs with any."""

    async def run(self) -> None:
        """Check a part of the logs every second, until cancelled."""
        attempts = self._faults.attempts(PART)
        while True:
            await asyncio.sleep(1)
            # After an outage all logs are read: Pub/Sub was interrupted as well.
            async with attempts:
                await self.check_due()

    async def check_due(self) -> None:
        """
        Check the logs that are due; mark those stale whose readers missed something.

        Raises:
            Unavailable: The store is unavailable; some logs may be unchecked.

        """
        self._second += 1
        due = self._due_logs(self._second % self._check_s)
        unavailable: Unavailable | None = None
        for first in range(0, len(due), BATCH):
            try:
                await self._peek_at(due[first : first + BATCH])
            except Unavailable as error:
                unavailable = error
        self._forget()
        if unavailable is not None:
            raise unavailable

    def _due_logs(self, second: int) -> list[Log]:
        """Return the logs that are checked in a second of the round."""
        new_logs: Collection[Log] = self._hub.new_logs
        if second == 0 or not self._slots:
            # To filter all logs every second would cost half as much as all the peeks.
            self._slots = [[] for _ in range(self._check_s)]
            new_logs = self._hub.logs
        for log in new_logs:
            self._slots[hash(log) % self._check_s].append(log)
        self._hub.new_logs.clear()
        # A log that lost all followers and got others is listed twice.
        due = dict.fromkeys(self._slots[second])
        return [log for log in due if log in self._hub]

    async def _peek_at(self, logs: Sequence[Log]) -> None:
        unavailable: Unavailable | None = None
        for log, peek in zip(logs, await self._inbox.peek(logs), strict=True):
            if isinstance(peek, Unavailable):
                unavailable = peek  # Its part of the store may be away alone.
                continue
            # If a peek fails, the read of the log reports the error.
            if isinstance(peek, Exception) or not self._is_in_sync(log, peek):
                self._hub.mark_stale(log)
        if unavailable is not None:
            raise unavailable

    def _is_in_sync(self, log: Log, peek: Peek) -> bool:
        self._expiries.note(log, peek.ends_at_ms)
        if peek.ended != self._ended.get(log, 0):
            # Whoever ended them may have been another node.
            self._ended[log] = peek.ended
            self._hub.note_ended(log)
        return self._hub.is_in_sync(log, peek.head, peek.marks) and (
            (self._second // self._check_s + hash(log)) % READ_EVERY != 0
        )

    def _forget(self) -> None:
        """Forget logs that nobody follows."""
        if self._ended and self._second % self._check_s == 0:
            followed = set(self._hub.logs)
            self._ended = {log: n for log, n in self._ended.items() if log in followed}

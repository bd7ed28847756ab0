"""
Comparing readers' places with their logs, in turns.

Decides which logs are to be read although nobody has said that there is something.
Knows the hub and how a log is glanced at. Knows nothing of what a read gives.

Announcements come at most once, and the loss of the last one shows nowhere. So where a
log stands is compared with where its readers are, each log once in a while: one plain
command, where a read is a script and a dozen objects. What is not level is read, and so
is now and then what seems to be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from typing import Final

from ...errors import Unavailable
from ...hub import Hub
from ...model import Log
from ...store.logs.inbox import Inbox, Peek

__all__ = ["READ_EVERY", "PositionCheck"]

BATCH: Final = 100
"""Logs glanced at in one packet."""

READ_EVERY: Final = 64
"""Of so many glances at a log one is a read: what has grown too old shows nowhere."""


class PositionCheck:
    """
    The places of all who are in a hub.

    Args:
        hub: Who is where.
        inbox: Where logs stand.
        check_s: How often each log is glanced at.

    """

    def __init__(self, hub: Hub, inbox: Inbox, *, check_s: int) -> None:
        self._hub = hub
        self._inbox = inbox
        self._check_s = check_s
        self._second = 0
        self._slots: list[list[Log]] = []
        """The logs that there are or were in this round, by the turn they have."""
        self._ended: dict[Log, int] = {}
        """How many entries of a log were over at the last glance, where some were."""
        self._shrunk: dict[Log, int] = {}
        """Audiences that had more of these than before, and the turn of that."""

    async def run(self) -> None:
        """Glance at a part of the logs each second; runs until cancelled."""
        while True:
            await asyncio.sleep(1)
            # The feed has gone as well, and finds out by itself what it has missed.
            with contextlib.suppress(Unavailable):
                await self.check_due()

    async def check_due(self) -> None:
        """
        Glance at the logs whose turn it is; doubt those where something was missed.

        Raises:
            Unavailable: The store is away; some may not have been looked at.

        """
        self._second += 1
        due = self._due_logs(self._second % self._check_s)
        for first in range(0, len(due), BATCH):
            await self._peek_at(due[first : first + BATCH])
        self._forget()

    def _due_logs(self, second: int) -> list[Log]:
        """Return the logs whose turn it is."""
        new_logs: Collection[Log] = self._hub.new_logs
        if second == 0 or not self._slots:
            # Asking each log each second whose turn it is would cost half as much as
            # all the glances.
            self._slots = [[] for _ in range(self._check_s)]
            new_logs = self._hub.logs
        for log in new_logs:
            self._slots[hash(log) % self._check_s].append(log)
        self._hub.new_logs.clear()
        # Who has left and come back is there twice.
        due = dict.fromkeys(self._slots[second])
        return [log for log in due if log in self._hub]

    async def _peek_at(self, logs: Sequence[Log]) -> None:
        for log, peek in zip(logs, await self._inbox.peek(logs), strict=True):
            if isinstance(peek, Unavailable):
                raise peek
            # Whoever reads a log that cannot be glanced at says what is wrong.
            if isinstance(peek, Exception) or not self._is_in_sync(log, peek):
                self._hub.mark_stale(log)

    def _is_in_sync(self, log: Log, peek: Peek) -> bool:
        has_shrunk = peek.ended != self._ended.get(log, 0)
        if has_shrunk:
            self._ended[log] = peek.ended
            if log.is_audience:
                # Its members have fewer unread, which their own logs do not say.
                self._shrunk[log] = self._second
        return not (
            has_shrunk
            or peek.is_due
            or not self._hub.is_in_sync(log, peek.head, peek.marks)
            or (self._second // self._check_s + hash(log)) % READ_EVERY == 0
            or (self._shrunk and self._reads_shrunk(log))
        )

    def _reads_shrunk(self, log: Log) -> bool:
        readers = self._hub.readers(log)
        return any(
            s.log in self._shrunk for r in readers for s in r.audience_subscriptions
        )

    def _forget(self) -> None:
        """Forget what every member has heard of by now, and logs nobody follows."""
        for log, second in tuple(self._shrunk.items()):
            if self._second - second > self._check_s:
                del self._shrunk[log]
        if self._ended and self._second % self._check_s == 0:
            followed = set(self._hub.logs)
            self._ended = {log: n for log, n in self._ended.items() if log in followed}

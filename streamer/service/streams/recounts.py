"""
Counting inboxes again, for streams whose unread number may be wrong.

Decides when a player's inbox is counted, and how many at once. Knows the hub and the
players' audiences. Knows nothing of what a stream does with a count.

There is one way to correct a number, for every reason (`Hub.note_needs_count`): a read
mark, a withdrawal, an expiry, a gap, a topic joined or left. The log is taken from the
list before its inbox is counted, so whatever happens later puts it there again. A
stream that cannot use a count, because something that was counted is still to come,
gets another one a little later.

A withdrawal of what was sent to everyone needs a count for each of ten thousand
streams. They are read in packets of `BATCH`, spread over `SPREAD_S`; who needs a count
at once goes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import Final

from ...core.streams.unread_count import InboxCount
from ...errors import RESYNC, Unavailable
from ...hub import Hub, Stream
from ...model import Log, Position
from ...store.client.faults import StoreFaults
from ..inboxes.audiences import PlayerAudiences
from .expiries import Expiries

__all__ = ["BATCH", "Recounts"]

BATCH: Final = 100
"""Inboxes counted in one packet."""

SOON_S: Final = 0.1
"""How long a count may wait for others, and for what it will count to arrive."""

SPREAD_S: Final = 1.2
"""Seconds over which the counts of all of a node's streams are spread at most."""

PACE_S: Final = 0.012
"""Seconds from one packet to the next; fewer if `SPREAD_S` would not suffice."""

AGAIN_S: Final = (0.05, 1.0)
"""When a stream that could not use a count gets another one: sooner, then later."""

STALE_AFTER: Final = 3
"""After so many counts that a stream could not use, its logs are read."""

BACK_OFF_S: Final = (0.05, 1.0)

PART: Final = "unread counts"
"""The name of this part in `StoreFaults`."""

_logger = logging.getLogger(__name__)


class Recounts:
    """
    Counts inboxes for the streams of a hub that need it.

    Args:
        hub: The readers.
        audiences: The players' audiences.
        expiries: Is told when entries of the players' logs will expire.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        hub: Hub,
        audiences: PlayerAudiences,
        expiries: Expiries,
        *,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._hub = hub
        self._audiences = audiences
        self._expiries = expiries
        self._some = asyncio.Event()
        self._some_at_once = asyncio.Event()
        self._vain: dict[Log, int] = {}
        """How many counts in succession were of no use to a stream of the player."""
        self._is_busy = False

    @property
    def is_counting(self) -> bool:
        """Whether a stream waits for a count."""
        hub = self._hub
        needed = hub.needs_count or hub.needs_count_at_once
        return bool(needed or self._vain or self._is_busy)

    def wake(self, *, at_once: bool) -> None:
        """Note that streams need counts."""
        self._some.set()
        if at_once:
            self._some_at_once.set()

    async def run(self) -> None:
        """Count until cancelled."""
        attempts = self._faults.attempts(PART, wait_s=BACK_OFF_S)
        while True:
            await self._some.wait()
            if not self._hub.needs_count_at_once:
                await self._wait_at_once(SOON_S)
            async with attempts:
                await self.count_all()

    async def count_all(self) -> None:
        """
        Count for all streams that need it now, in packets.

        Raises:
            Unavailable: The store is unavailable; the counts are still needed.

        """
        hub = self._hub
        self._some.clear()
        due, hub.needs_count = hub.needs_count, {}
        now_s = asyncio.get_running_loop().time
        pace_s = min(PACE_S, SPREAD_S * BATCH / max(len(due), 1))
        self._is_busy = True
        try:
            while due or hub.needs_count_at_once:
                next_s = now_s() + pace_s
                await self._count(self._take(due))
                if due:
                    await self._wait_at_once(next_s - now_s())
        finally:
            self._is_busy = False
            if due:
                # The store is unavailable.
                hub.needs_count = due | hub.needs_count
                self._some.set()

    def _take(self, due: dict[Log, None]) -> list[Log]:
        """Take the logs of the next packet, those that need a count at once first."""
        packet: list[Log] = []
        for logs in (self._hub.needs_count_at_once, due):
            taken = list(islice(logs, BATCH - len(packet)))
            for log in taken:
                del logs[log]
            packet += taken
        if not self._hub.needs_count_at_once:
            self._some_at_once.clear()
        return packet

    async def _wait_at_once(self, seconds: float) -> None:
        """Wait, but not while a stream needs a count at once."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._some_at_once.wait()
        except TimeoutError:
            pass

    async def _count(self, packet: Sequence[Log]) -> None:
        logs = []
        for log in dict.fromkeys(packet):
            streams = self._counting(log)
            if any(stream.can_take_count for stream in streams):
                logs.append(log)
            elif streams:
                self._again(log, None)
            else:
                self._vain.pop(log, None)
        if not logs:
            return
        try:
            counts = await self._audiences.counts(logs)
        except BaseException:
            for log in logs:
                self._hub.note_needs_count(log)
            raise
        unavailable = None
        for log, counted in zip(logs, counts, strict=True):
            if isinstance(counted, Unavailable):
                self._hub.note_needs_count(log)
                unavailable = counted
            elif isinstance(counted, Exception):
                if log not in self._vain:
                    _logger.error("could not count in %s: %s", log.app, counted)
                self._again(log, None)
            else:
                self._expiries.note(log, counted.ends_at_ms)
                self._deliver(log, counted.counted)
        if unavailable is not None:
            raise unavailable

    def _deliver(self, log: Log, count: InboxCount) -> None:
        outcomes = []
        for stream in self._counting(log):
            try:
                outcomes.append(stream.on_count(count))
            except Exception:  # Of this stream; the others go on.
                _logger.exception("could not send a count to a stream, which is closed")
                stream.end(RESYNC)
        if all(outcomes):
            self._vain.pop(log, None)
        else:
            self._again(log, count)

    def _counting(self, log: Log) -> list[Stream]:
        return [stream for stream in self._hub.streams(log) if stream.is_counting]

    def _again(self, log: Log, count: InboxCount | None) -> None:
        """Count once more, a little later. `count` was of no use, if there was one."""
        vain = self._vain[log] = self._vain.get(log, 0) + 1
        if count is not None and vain % STALE_AFTER == 0:
            self._mark_stale(log, count)
        low_s, high_s = AGAIN_S
        delay_s = min(high_s, low_s * 2 ** min(vain, 10))
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, self._hub.note_needs_count, log)

    def _mark_stale(self, log: Log, count: InboxCount) -> None:
        """
        Have the logs read in which a player's streams are behind a count.

        What was counted does not arrive, so its announcement was lost. The own log is
        read in any case, which finds the audiences that the streams do not know of.
        """
        if not any(stream.can_take_count for stream in self._counting(log)):
            return  # They are being read.
        self._hub.mark_stale(log)
        if self._hub.portions:
            # What was counted may be on its way, or be announced behind what is. If it
            # is lost, a later count in vain finds that. Ten thousand readers of an
            # audience that read because one has not had its turn take so long that the
            # next message finds them reading.
            return
        for reader in self._hub.readers(log):
            for sub in reader.audience_subscriptions:
                audience, at = count.audiences.get(sub.log), sub.read_from
                if (
                    audience is not None
                    and isinstance(at, Position)
                    and at.offset < audience.head.offset
                    # It may have ten thousand followers, each with such a count.
                    and sub.log not in self._hub.needs_read
                ):
                    self._hub.mark_stale(sub.log)

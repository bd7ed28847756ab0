"""
Following a log: joining, catching up, and being told.

Decides when the store is read for readers that are behind, and in what portions. Knows
the hub, the relay and the inbox. Knows nothing of transports.

There is one way to catch up, for every reason. A reader that joins, saw a hole, was cut
off from its feed with the whole process, or is doubted in its turn, is replaying; its
log is read from its place; what comes is given to all readers at that place. Reads are
pipelined, `BATCH` at a time, so that a reconnect of ten thousand readers reaches the
store as a hundred packets one after the other.

Order when a reader joins: subscribe, attach, read. An entry appended before the
subscription is in the read; one appended after it is announced.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.counters import Counters
from ...core.streams.subscription import ReadFrom, Start
from ...core.streams.views import View
from ...errors import RESYNC, Unavailable
from ...hub import Follower, Hub
from ...model import App, Entry, Log
from ...store.client.pubsub import PubSub
from ...store.logs.inbox import Inbox, Read, ReadAfter
from ..inboxes.audiences import PlayerAudiences, unread_count
from .position_check import PositionCheck
from .stream_audiences import StreamAudiences

__all__ = ["PROBE_APP", "CatchUp"]

BATCH: Final = 100
"""Logs read in one packet."""

PORTION: Final = 100
"""Entries read at a time for one reader."""

PORTION_BYTES: Final = 262_144
"""The same by weight: a packet of `BATCH` portions stays within 25 MiB or so."""

CURSOR_UPDATE_S: Final = 1.0
"""How soon a reader is told its place in its audiences, when that has moved."""

CURSOR_UPDATE_BATCH: Final = 100
"""To how many that is said in one turn of the loop: it shall delay no message."""

CONGESTED_S: Final = 0.05
"""How soon to look again at a reader that has not taken its last portion."""

BACK_OFF_S: Final = (0.05, 2.0)

PROBE_APP: Final = App(".probe")
"""Of what the node sends to itself. No app can be called that (`model.parse_app`), so
nobody can read or write it, and it is not counted."""

_logger = logging.getLogger(__name__)


class _LogRead(NamedTuple):
    """A read for those who are at a place in a log."""

    log: Log
    read_from: ReadFrom
    behind_max: int


class CatchUp:
    """
    What keeps this process's readers complete.

    Args:
        store_url: Where announcements come from.
        inbox: Where logs are read.
        audiences: Which of them a player belongs to.
        replay_max: A reader that joins further behind than this gets a gap.
        check_s: How often every reader's place is compared with its log.
        figures: What counts how long entries take.

    """

    def __init__(
        self,
        store_url: str,
        inbox: Inbox,
        audiences: PlayerAudiences,
        *,
        replay_max: int,
        check_s: int,
        counters: Counters | None = None,
    ) -> None:
        self._counters = counters or Counters()
        self._inbox = inbox
        self._replay_max = replay_max
        self._wake = asyncio.Event()
        self._retry_is_due = False
        self.hub = Hub(self._wake.set)
        self._pubsub = PubSub(store_url, self)
        self._audiences = audiences
        self.stream_audiences = StreamAudiences(self.hub, self._pubsub, audiences)
        self._position_check = PositionCheck(self.hub, inbox, check_s=check_s)

    @property
    def connected(self) -> bool:
        """Whether announcements are coming in."""
        return self._pubsub.connected

    @property
    def interruptions(self) -> int:
        """How often they have ceased to."""
        return self._pubsub.losses

    def reconnect(self) -> None:
        """Drop the connection that announcements come by; a fresh one follows."""
        self._pubsub.reconnect()

    async def run(self) -> None:
        """Keep readers complete; runs until cancelled, raises when broken."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pubsub.run(), name="pubsub")
            tasks.create_task(self._catch_up(), name="reads")
            tasks.create_task(self._position_check.run(), name="position check")
            tasks.create_task(self._send_cursors(), name="cursor updates")

    # What the relay tells.

    def on_entry(self, log: Log, entry: Entry) -> None:
        if self.hub.dispatch(log, entry) and log.app != PROBE_APP:
            latency_s = time.time() - entry.at_ms / 1_000
            self._counters.publish_to_write_s.observe(latency_s)

    def on_read(self, log: Log, *, marks: int, unread: int, body: bytes) -> None:
        self.hub.broadcast_mark(log, marks=marks, unread=unread, body=body)

    def on_replaced(self, log: Log, connection: str) -> None:
        self.hub.end_replaced(log, connection)

    def on_ephemeral(self, log: Log, notification: bytes) -> None:
        self.hub.broadcast_ephemeral(log, notification)

    def on_audiences_changed(self, log: Log) -> None:
        # The read that follows finds what.
        self.hub.mark_stale(log)

    def on_subscribed(self, log: Log) -> None:
        self.hub.mark_stale(log)

    # What is done about it.

    async def _catch_up(self) -> None:
        low_s, high_s = BACK_OFF_S
        delay_s = low_s
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                congested = await self._catch_up_once()
            except Unavailable:
                # Readers stay open and silent: closing them would turn a short outage
                # into a storm.
                self._wake.set()
                await asyncio.sleep(delay_s * random.uniform(0.5, 1))
                delay_s = min(2 * delay_s, high_s)
                continue
            delay_s = low_s
            if congested and not self._retry_is_due:
                # A timer and no sleep: who reads slowly shall delay nobody else.
                self._retry_is_due = True
                asyncio.get_running_loop().call_later(
                    CONGESTED_S, self._retry_congested
                )

    def _retry_congested(self) -> None:
        self._retry_is_due = False
        self._wake.set()

    async def _catch_up_once(self) -> bool:
        """Read once for every log that is behind; say whether a reader has to wait."""
        congested = False
        progress = False
        logs = list(self.hub.needs_read)
        for first in range(0, len(logs), BATCH):
            reads: list[_LogRead] = []
            for log in logs[first : first + BATCH]:
                readers_by_position = self.hub.readers_by_position(log)
                if not readers_by_position:
                    self.hub.needs_read.discard(log)
                for read_from, readers in readers_by_position.items():
                    if all(reader.congested for reader in readers):
                        congested = True
                        continue
                    for reader in readers:
                        reader.own_subscription().begin_read()
                    reads.append(
                        _LogRead(
                            log, read_from, self._replay_max_of(read_from, readers)
                        )
                    )
            await self._read(reads)
            progress |= bool(reads)
        if progress and self.hub.needs_read:
            self._wake.set()
        return congested

    async def _read(self, reads: list[_LogRead]) -> None:
        requests = [
            ReadAfter(read.log, read.read_from, PORTION, read.behind_max, PORTION_BYTES)
            for read in reads
        ]
        players = [read.log for read in reads if not read.log.is_audience]
        replies, counts = await asyncio.gather(
            self._inbox.read_many(requests), self._read_audiences(players)
        )
        # Looked up once: there may be as many positions in a log as followers.
        readers = {
            log: self.hub.readers_by_position(log)
            for log in {read.log for read in reads}
        }
        for (log, read_from, _), reply in zip(reads, replies, strict=True):
            if isinstance(reply, Unavailable):
                raise reply
            if isinstance(reply, Exception):
                _logger.error("a log of %s cannot be read: %s", log.app, reply)
                for follower in self.hub.followers(log):
                    follower.end(RESYNC)
            else:
                unread = reply.unread + counts.get(log, 0)
                followers = readers[log].get(read_from, ())
                self._deliver(followers, read_from, reply._replace(unread=unread))

    async def _read_audiences(self, logs: list[Log]) -> dict[Log, int]:
        """Return the unread counts of players' audiences; heed who joined or left."""
        if not logs:
            return {}
        replies = dict(
            zip(logs, await self._audiences.views_of_many(logs), strict=True)
        )
        views: dict[Log, list[View]] = {}
        for log, of_player in replies.items():
            if isinstance(of_player, Unavailable):
                raise of_player
            if isinstance(of_player, Exception):
                _logger.error("views in %s cannot be read: %s", log.app, of_player)
            else:
                views[log] = of_player
        for log in views:
            for reader in self.hub.readers(log):
                await self.stream_audiences.refresh(log, reader, views[log])
        audience_logs = (view.log for of in views.values() for view in of)
        try:
            audiences = await self._audiences.read(audience_logs)
        except ResponseError as error:
            # Its readers are sent away when it is read.
            _logger.error("an audience cannot be looked at: %s", error)
            return {}
        return {log: unread_count(of, audiences) for log, of in views.items()}

    def _replay_max_of(self, read_from: ReadFrom, readers: Sequence[Follower]) -> int:
        # Only who joins can be too far behind. Who is live gets what it would have got
        # anyway; and who asked for the earliest has asked for all of it.
        if read_from is Start.EARLIEST:
            return 0
        return self._replay_max if all(r.joining for r in readers) else 0

    def _deliver(
        self, followers: Sequence[Follower], read_from: ReadFrom, read: Read
    ) -> None:
        for follower in followers:
            if not follower.congested:
                follower.on_history(
                    read_from, read.history, unread=read.unread, marks=read.marks
                )

    async def _send_cursors(self) -> None:
        """Tell readers where they are in their audiences, at most once a second."""
        while True:
            await asyncio.sleep(CURSOR_UPDATE_S)
            streams = list(self.hub.take_due_cursor_updates(time.monotonic()))
            for first in range(0, len(streams), CURSOR_UPDATE_BATCH):
                # Who has left meanwhile is told nothing: there is nowhere to write to.
                for stream in streams[first : first + CURSOR_UPDATE_BATCH]:
                    stream.send_cursor()
                await asyncio.sleep(0)

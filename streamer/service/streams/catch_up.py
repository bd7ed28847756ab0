"""
Catching up: reads of logs for readers that are not live.

Decides when the store is read for which readers, and in what portions. Knows the hub,
Pub/Sub and the inbox. Knows nothing of transports.

There is one way to catch up, for every reason. A reader that joins, has seen a hole,
has lost Pub/Sub together with the whole process, or is due for its periodic check is
replaying: its log is read from its position, and the result is delivered to all readers
at that position. Reads are pipelined, `BATCH` at a time, so that a reconnect of ten
thousand readers reaches the store as a hundred packets, one after the other.

A reader joins in this order: subscribe, attach, read. The read returns an entry that
was appended before the subscription; an entry appended after it is announced.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.counters import Counters
from ...core.portions import Portions
from ...core.streams.audience_subscription import AudienceSubscription
from ...core.streams.session import Session
from ...core.streams.subscription import ReadFrom, Start
from ...core.streams.unread_count import InboxCount
from ...core.streams.views import Audience, View
from ...core.trace_context import TraceContext
from ...errors import RESYNC, Unavailable
from ...hub import Follower, Hub
from ...model import App, Entry, Log, Position
from ...store.client.address import StoreAddress
from ...store.client.faults import StoreFaults
from ...store.client.pubsub import PubSub
from ...store.logs.inbox import Inbox, Read, ReadAfter
from ...store_url import NAMESPACE
from ..inboxes.audiences import PlayerAudiences, inbox_count
from ..inspection.history import History
from ..tracing.deliveries import DeliveryTraces
from .expiries import Expiries
from .poll_waiter import PollWaiter
from .position_check import PositionCheck
from .recounts import Recounts
from .stream_audiences import StreamAudiences

__all__ = ["PROBE_APP", "CatchUp"]

BATCH: Final = 100
"""Reads in one packet."""

PORTION: Final = 100
"""Entries per read."""

PORTION_BYTES: Final = 262_144
"""Bytes of fragments per read: a packet of `BATCH` reads stays below about 25 MiB."""

CURSOR_UPDATE_S: Final = 1.0
"""How often streams whose cursors have changed are sent them."""

CURSOR_UPDATE_BATCH: Final = 100
"""Cursors sent per iteration of the event loop, so that they delay no notification."""

CONGESTED_S: Final = 0.05
"""How soon to try again with a reader whose send buffer had no room."""

READERS_MAX: Final = 1_000
"""
Readers of one log for which it is read at once. After an interruption all readers of an
audience need a read; there is one for every thousand of them.
"""

DELIVERED_MAX: Final = 200
"""Entries and readers of a read that are delivered per turn of the event loop."""

DISPLACED_FOLLOWERS_MAX: Final = 100
"""
In a log that is full each entry displaces another. The streams of a larger audience are
counted again by their reads alone: hardly any reader has the oldest of 10,000 unread.
"""

TURN: Final = 100
"""
Writes per turn of the event loop: about one ms. A page takes several turns, and each of
them waits for one of a broadcast (bench.tail). Those of grouped readers are the unit
(`core.portions`).
"""

ANNOUNCEMENT_COST: Final = 5
"""The share of a turn that the announcement of a player's log takes."""

BACK_OFF_S: Final = (0.05, 1.0)

PROBE_APP: Final = App(".probe")
"""
The app of the probes that a node sends to itself. It is not a valid name of an app
(`model.parse_app`), so that no caller can read or write it, and it is not counted.
"""

PART: Final = "reads of streams"
"""The name of this part in `StoreFaults`."""

_logger = logging.getLogger(__name__)


class _LogRead(NamedTuple):
    """A read for all readers of a log at one position."""

    log: Log
    read_from: ReadFrom
    behind_max: int


class _Portion:
    """Lets the event loop have a turn after `DELIVERED_MAX` deliveries."""

    def __init__(self) -> None:
        self._count = 0

    async def add(self, count: int) -> None:
        self._count += count
        if self._count >= DELIVERED_MAX:
            self._count = 0
            await asyncio.sleep(0)


class CatchUp:
    """
    Keeps this process's readers complete.

    Args:
        store: The URL or the address of the store, for Pub/Sub.
        inbox: The logs.
        audiences: The players' audiences.
        replay_max: A reader that joins more entries than this behind the head gets a
            gap.
        check_s: How often every reader's position is compared with its log.
        namespace: As for the connection of `inbox`.
        counters: The node's counters, for latencies.
        history: Remembers what was announced and replayed.
        faults: Told of what the store refuses.
        traces: Makes spans of deliveries.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        inbox: Inbox,
        audiences: PlayerAudiences,
        *,
        replay_max: int,
        check_s: int,
        namespace: str = NAMESPACE,
        counters: Counters | None = None,
        history: History | None = None,
        faults: StoreFaults | None = None,
        traces: DeliveryTraces | None = None,
    ) -> None:
        self._traces = traces
        self._traces_waiting = {} if traces is None else traces.waiting
        """Mostly empty: to look at it is all that a fan-out pays for traces."""
        self._counters = counters or Counters()
        self._history = history or History()
        self._note_announced = self._history.announcements.append
        self._faults = faults = faults or StoreFaults()
        self._inbox = inbox
        self._replay_max = replay_max
        self._wake = asyncio.Event()
        self._retry_is_due = False
        self._turn_is_due = False
        self._portions = Portions(
            TURN, on_unfinished=self._need_turn, on_error=_log_error
        )
        self.hub = Hub(
            self._wake.set,
            self._wake_recounts,
            self._note_delivered,
            portions=self._portions,
        )
        self._pubsub = PubSub(store, self, namespace=namespace, faults=faults)
        self._audiences = audiences
        self.stream_audiences = StreamAudiences(self.hub, self._pubsub, audiences)
        self._expiries = Expiries(self.hub, inbox, faults=faults)
        self._recounts = Recounts(self.hub, audiences, self._expiries, faults=faults)
        self._position_check = PositionCheck(
            self.hub, inbox, self._expiries, check_s=check_s, faults=faults
        )

    @property
    def connected(self) -> bool:
        """Whether announcements are received."""
        return self._pubsub.connected

    @property
    def interruptions(self) -> int:
        """How often Pub/Sub was interrupted."""
        return self._pubsub.losses

    @property
    def server(self) -> str:
        """The name of the run of the server that announces; "" if not known."""
        return self._pubsub.server

    def reconnect(self) -> None:
        """Close the Pub/Sub connection, and open another one."""
        self._pubsub.reconnect()

    async def run(self) -> None:
        """Keep readers complete until cancelled; raise if a task fails."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pubsub.run(), name="pubsub")
            tasks.create_task(self._catch_up(), name="reads")
            tasks.create_task(self._position_check.run(), name="position check")
            tasks.create_task(self._send_cursors(), name="cursor updates")
            tasks.create_task(self._recounts.run(), name="recounts")
            tasks.create_task(self._expiries.run(), name="expiries")

    def _wake_recounts(self, at_once: bool) -> None:
        self._recounts.wake(at_once=at_once)

    # Turns of the event loop.

    def _need_turn(self) -> None:
        """See to it that what is left is done in the next turns."""
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _begin_turn(self) -> None:
        self._turn_is_due = False
        self._portions.begin_turn()
        self._pubsub.go_on()
        self._portions.go_on()

    # Announcements; see `store.client.pubsub.PubSubHandler`.

    def may_take(self) -> bool:
        return self._portions.take(ANNOUNCEMENT_COST)

    def on_trace(self, log: Log, entry: Entry | None, trace: TraceContext) -> None:
        if self._traces is not None and log.app != PROBE_APP:
            self._traces.begin(log, entry, trace, readers=self.hub.follower_count(log))

    def on_entry(self, log: Log, entry: Entry) -> None:
        if self.hub.dispatch(log, entry):
            self._note_delivered(log, entry)
        elif log.app != PROBE_APP:
            self._note_announced(
                (log, entry.offset, entry.tag, entry.device, -time.time())
            )
        self._expiries.note_entry(log, entry)
        if entry.offset > self._inbox.entries_max:
            # It has displaced the oldest entry, which may have been unread.
            self.hub.note_ended(log, followers_max=DISPLACED_FOLLOWERS_MAX)

    def _note_delivered(self, log: Log, entry: Entry) -> None:
        if self._traces_waiting:
            self._end_trace(log, entry.offset)
        if log.app != PROBE_APP:
            now_s = time.time()
            self._counters.publish_to_write_s.observe(now_s - entry.at_us / 1e6)
            self._note_announced((log, entry.offset, entry.tag, entry.device, now_s))

    def _end_trace(self, log: Log, offset: int) -> None:
        if self._traces is not None:
            self._traces.delivered(log, offset)

    def on_read(self, log: Log, *, marks: int, body: bytes) -> None:
        self.hub.broadcast_mark(log, marks=marks, body=body)
        self._wake_polls(log)

    def on_replaced(self, log: Log, connection: str) -> None:
        self.hub.end_replaced(log, connection)

    def on_ephemeral(self, log: Log, notification: bytes) -> None:
        self.hub.broadcast_ephemeral(log, notification)
        if self._traces_waiting:
            self._end_trace(log, 0)

    def on_audiences_changed(self, log: Log) -> None:
        # The read that follows finds the change.
        self.hub.mark_stale(log)

    def on_count_changed(self, log: Log) -> None:
        self.hub.note_needs_count(log, at_once=True)
        self._wake_polls(log)

    def on_erased(self, log: Log) -> None:
        self.hub.end_all(log)
        if self._traces is not None:
            self._traces.forget(log)

    def on_subscribed(self, log: Log) -> None:
        self.hub.mark_stale(log)

    def _wake_polls(self, log: Log) -> None:
        # A poll whose wait begins after the announcement reads once more then.
        for reader in self.hub.readers(log):
            if isinstance(reader, PollWaiter):
                reader.on_mark()

    # Reads.

    async def _catch_up(self) -> None:
        attempts = self._faults.attempts(PART, wait_s=BACK_OFF_S)
        while True:
            await self._wake.wait()
            self._wake.clear()
            congested = False
            async with attempts:
                congested = await self._catch_up_once()
            if attempts.failing:
                # Streams stay open: closing them would turn a short outage into a
                # storm of reconnects.
                self._wake.set()
            if congested and not self._retry_is_due:
                # A timer instead of a sleep: a slow reader must not delay others.
                self._retry_is_due = True
                asyncio.get_running_loop().call_later(
                    CONGESTED_S, self._retry_congested
                )

    def _retry_congested(self) -> None:
        self._retry_is_due = False
        self._wake.set()

    async def _catch_up_once(self) -> bool:
        """Read every log that needs it; return whether a reader is congested."""
        congested = False
        progress = False
        unavailable: Unavailable | None = None
        logs = list(self.hub.needs_read)
        for first in range(0, len(logs), BATCH):
            reads: list[_LogRead] = []
            for log in logs[first : first + BATCH]:
                readers_by_position = self.hub.readers_by_position(log, READERS_MAX)
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
            try:
                await self._read(reads)
            except Unavailable as error:
                # A part of the store may be away, and the others not.
                unavailable = error
            progress |= bool(reads)
        if unavailable is not None:
            raise unavailable
        if progress and self.hub.needs_read:
            self._wake.set()
        return congested

    async def _read(self, reads: list[_LogRead]) -> None:
        requests = [
            ReadAfter(read.log, read.read_from, PORTION, read.behind_max, PORTION_BYTES)
            for read in reads
        ]
        players = [read.log for read in reads if not read.log.is_audience]
        # One packet, executed in this order. The audiences are those that the readers
        # follow already; the views tell whether there are others.
        followed = self._followed_audiences(players)
        replies, views_of_players, states = await asyncio.gather(
            self._inbox.read_many(requests),
            _of_players(players, self._audiences.views_of_many(players)),
            _of_audiences(followed, self._audiences.read_each(followed)),
        )
        views, audiences, incomplete = await self._views_and_audiences(
            views_of_players, states
        )
        # Looked up once: a log may have as many positions as followers.
        readers = {
            log: self.hub.readers_by_position(log, READERS_MAX)
            for log in {read.log for read in reads}
        }
        unavailable: Unavailable | None = None
        portion = _Portion()
        for (log, read_from, _), reply in zip(reads, replies, strict=True):
            if isinstance(reply, Unavailable):
                unavailable = reply
            elif log in incomplete:
                unavailable = incomplete[log]
            elif isinstance(reply, Exception):
                self._inbox.damage.note(PART, f"a log of {log.app}", reply)
                for follower in self.hub.followers(log):
                    follower.end(RESYNC)
                    await portion.add(1)
            else:
                self._expiries.note(log, reply.ends_at_ms)
                followers = readers[log].get(read_from, ())
                count = None
                if log in views:
                    count = inbox_count(
                        reply.history.head,
                        reply.unread,
                        reply.marks,
                        views[log],
                        audiences,
                        reply.unread_before,
                    )
                await self._deliver(portion, log, followers, read_from, reply, count)
        if unavailable is not None:
            raise unavailable

    def _followed_audiences(self, players: Iterable[Log]) -> list[Log]:
        """Return the logs of the audiences that readers of these players follow."""
        return [
            sub.log
            for log in players
            for reader in self.hub.readers(log)
            for sub in reader.audience_subscriptions
        ]

    async def _views_and_audiences(
        self,
        replies: Mapping[Log, list[View] | Exception],
        states: Mapping[Log, Audience | Exception],
    ) -> tuple[dict[Log, list[View]], dict[Log, Audience], dict[Log, Unavailable]]:
        """
        Return the views of players, and the state of the audiences in them.

        Also returns the players of which an audience is in a part of the store that is
        away, so that nothing can be counted for them yet.

        `states` has those that are known; others are read. Subscribes the players'
        readers to audiences that the players have joined since, and unsubscribes them
        from those they have left.
        """
        if not replies:
            return {}, {}, {}
        views: dict[Log, list[View]] = {}
        for log, of_player in replies.items():
            if isinstance(of_player, Unavailable):
                continue  # So is the player's log, which is in the same part.
            if isinstance(of_player, Exception):
                self._inbox.damage.note(PART, f"views in {log.app}", of_player)
            else:
                views[log] = of_player
        incomplete: dict[Log, Unavailable] = {}
        for log in views:
            for reader in self.hub.readers(log):
                try:
                    await self.stream_audiences.refresh(log, reader, views[log])
                except Unavailable as error:
                    incomplete[log] = error
                except ResponseError as error:
                    self._inbox.damage.note(PART, f"audiences of {log.app}", error)
                    reader.end(RESYNC)
        named = {view.log for of in views.values() for view in of}
        if missing := list(named - states.keys()):
            read = self._audiences.read_each(missing)
            states = {**states, **await _of_audiences(missing, read)}
        audiences: dict[Log, Audience] = {}
        away: dict[Log, Unavailable] = {}
        for audience_log in named:
            audience = states[audience_log]
            if isinstance(audience, Audience):
                audiences[audience_log] = audience
                continue
            # Its readers are closed when its log is read. Its players get no count.
            if isinstance(audience, Unavailable):
                away[audience_log] = audience
            else:
                where = f"an audience of {audience_log.app}"
                self._inbox.damage.note(PART, where, audience)
        for log, of in views.items():
            failures = [away[view.log] for view in of if view.log in away]
            if failures:
                incomplete[log] = failures[0]
        views = {
            log: of
            for log, of in views.items()
            if all(view.log in audiences for view in of)
        }
        return views, audiences, incomplete

    def _replay_max_of(self, read_from: ReadFrom, readers: Sequence[Follower]) -> int:
        # Only a reader that joins can be too far behind. A live one gets what it would
        # have got anyway, and one that starts at the earliest entry wants all of them.
        if read_from is Start.EARLIEST:
            return 0
        return self._replay_max if all(r.joining for r in readers) else 0

    async def _deliver(
        self,
        portion: _Portion,
        log: Log,
        followers: Sequence[Follower],
        read_from: ReadFrom,
        read: Read,
        count: InboxCount | None,
    ) -> None:
        # Between two portions a follower may leave, or become stale again: it ignores a
        # read from elsewhere than its position, and writes nothing after its end.
        for follower in followers:
            if follower.congested:
                continue
            try:
                follower.on_history(read_from, read.history, count)
                if read.history.entries:
                    self._note_replay(log, follower, read.history.entries[0].offset)
            except Exception:  # Of this reader; the others go on.
                _logger.exception("could not deliver to a reader, which is closed")
                follower.end(RESYNC)
            await portion.add(1 + len(read.history.entries))

    def _note_replay(self, log: Log, follower: Follower, first: int) -> None:
        """Remember that a stream was sent the entries of a read from `first` on."""
        reader: object = follower
        if isinstance(follower, AudienceSubscription):
            reader = follower.owner
        upto = follower.subscription.read_from
        if (
            isinstance(reader, Session)
            and isinstance(upto, Position)
            and upto.offset >= first
        ):
            self._history.replayed(log, reader.connection, first, upto.offset)
            if self._traces is not None:
                self._traces.read(log, first, upto.offset)

    async def _send_cursors(self) -> None:
        """Send cursors that have changed, at most every `CURSOR_UPDATE_S`."""
        while True:
            await asyncio.sleep(CURSOR_UPDATE_S)
            streams = list(self.hub.take_due_cursor_updates(time.monotonic()))
            for first in range(0, len(streams), CURSOR_UPDATE_BATCH):
                # A stream that has left meanwhile has no connection to write to.
                for stream in streams[first : first + CURSOR_UPDATE_BATCH]:
                    try:
                        stream.send_cursor()
                    except Exception:  # The cursor is sent again when it changes.
                        _logger.exception("could not send a stream its cursor")
                await asyncio.sleep(0)


def _log_error(error: Exception) -> None:
    """Log why an announcement was not handled. Its readers read; others go on."""
    _logger.error("could not handle an announcement", exc_info=error)


async def _of_players(
    players: Sequence[Log], views: Awaitable[Sequence[list[View] | Exception]]
) -> dict[Log, list[View] | Exception]:
    """Return views by player, each a failure if the whole store, or their part, is."""
    try:
        return dict(zip(players, await views, strict=True))
    except Unavailable as error:
        return dict.fromkeys(players, error)


async def _of_audiences(
    logs: Sequence[Log], states: Awaitable[Mapping[Log, Audience | Exception]]
) -> Mapping[Log, Audience | Exception]:
    """Return the states of audiences; see `_of_players`."""
    try:
        return await states
    except Unavailable as error:
        return dict.fromkeys(logs, error)

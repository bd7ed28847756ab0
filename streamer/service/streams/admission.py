"""
Admission of connections: slots, leases, timers, and the drain.

Decides whether a stream or a waiting poll may open on this node, takes the player's
lease for it, and releases everything exactly once, however the connection ends. A
`Connection` records what one connection holds. The coroutine that serves the connection
holds it by a ``with`` block, so that neither a client nor a response that never starts
can skip the release. A stream that outlives its coroutine calls `Connection.stay`, and
then releases everything when its connection is lost. Knows the node's limits, leases
and readers. Knows nothing of transports.

When many connections are lost at once, each gives up its slot, its lease and its place
among the readers in the same turn of the event loop: nothing is delivered to it and it
counts against no limit any more. What only reports its end, or tidies up, follows in
portions (`service.streams.departures`).

Admission also runs the timers (heartbeats, expiring credentials) and the staged drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from ... import errors
from ...config import Config
from ...core.access.rights import Caller
from ...core.counters import Counters
from ...core.limits import RateLimiter, Slots
from ...core.streams.audience_subscription import AudienceSubscription
from ...errors import Disconnect, Draining, Error, Limit, LimitReached
from ...hub import Reader
from ...model import Log, Topic
from ...store.client.connection import Reply
from ...store.client.faults import STORE_FAILURES
from ...store.presence.devices import Devices
from ...store.presence.leases import Lease, Leases
from ..access.failures import FailedAuthentications
from ..access.revocation import RevocationCheck
from ..inspection.history import History
from ..node.player_names import PlayerNames
from .admission_queue import AdmissionQueue
from .catch_up import CatchUp
from .connection_log import ConnectionLog
from .departures import Departures
from .stream_audiences import PendingJoin
from .timer_wheel import TICK_S, TICKED_MAX, TimerWheel

__all__ = ["JOINING_MAX", "Admission", "Connection"]

DRAIN_GRACE_S: Final = 1.0
DRAIN_DELAY_MS: Final = 2_000
"""Clients reconnect within this time, at random, to spread the load on other nodes."""

JOINING_MAX: Final = 128
"""
Connections that join at the same time; the others wait in a queue. Otherwise thousands
that arrive in one moment would all be served at once, and so late that their clients
have given up and try again: the work would be done for nobody. The store may answer all
of these in one turn of the event loop, which then takes 5 to 10 ms.
"""

JOINING_WAIT_MAX_S: Final = 8.0
"""Most client libraries allow ten seconds for a handshake."""

_logger = logging.getLogger(__name__)


class Admission:
    """
    Admits the connections of this node.

    Args:
        catch_up: Keeps their readers complete.
        leases: The players' leases.
        config: The limits.
        revocation_check: Ends readers whose credential is revoked, if given.
        devices: The players' devices, if given.
        counters: The node's counters.
        failures: Counts authentications that fail.
        history: Remembers the ends of connections.

    """

    def __init__(
        self,
        catch_up: CatchUp,
        leases: Leases,
        config: Config,
        revocation_check: RevocationCheck | None = None,
        devices: Devices | None = None,
        counters: Counters | None = None,
        failures: FailedAuthentications | None = None,
        history: History | None = None,
    ) -> None:
        self.counters = counters or Counters()
        players = PlayerNames(config.log_players, config.log_key)
        self.connection_log = ConnectionLog(players, failures, history)
        self._catch_up = catch_up
        self._stream_audiences = catch_up.stream_audiences
        self._leases = leases
        self._revocation_check = revocation_check
        self._devices = devices
        self._drain_s = config.drain_s
        self._send_age_s = config.send_age_s
        self._slots = Slots(
            config.connections_max,
            Limit.CONNECTIONS_PER_NODE,
            refusals=self.counters.refusals,
        )
        self._rate = RateLimiter(
            config.connects_per_s_max, burst=config.connects_per_s_max
        )
        self.queue = AdmissionQueue(
            JOINING_MAX,
            Limit.CONNECTS_PER_SECOND,
            wait_max_s=JOINING_WAIT_MAX_S,
            refusals=self.counters.refusals,
        )
        """To be held while a connection joins, in the order of arrival."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._timer_wheel = TimerWheel(time.monotonic())
        self._forgetting: set[asyncio.Task[None]] = set()
        self._departures = Departures()
        self._closings = Departures()
        self.draining = False

    @property
    def node(self) -> str:
        """The node's name, random and new at every start."""
        return self._leases.node

    @property
    def open(self) -> int:
        """The number of connections that hold a slot of this node."""
        return self._slots.in_use

    def admit(self) -> Connection:
        """
        Take a slot of the node for a connection; `Connection.leave` releases it.

        Raises:
            Draining: The node is draining.
            LimitReached: Connections arrive too fast, the wait would be too long, or
                the node has no free slot.

        """
        if self.draining:
            raise Draining
        if not self._rate.allow(time.monotonic()):
            raise self._count_refusal(LimitReached(Limit.CONNECTS_PER_SECOND))
        self.queue.require_capacity()
        self._slots.acquire()
        self._empty.clear()
        return Connection(self, has_slot=True)

    async def listen_to(
        self, log: Log, reader: Reader, topics: Sequence[Topic]
    ) -> None:
        """Set the topics of a reader; see `StreamAudiences.listen_to`."""
        await self._stream_audiences.listen_to(log, reader, topics)

    def new_connection(self) -> str:
        """Return a new connection's name, for its reader."""
        return self._leases.new_connection()

    @asynccontextmanager
    async def listen(
        self,
        log: Log,
        reader: Reader,
        *,
        caller: Caller | None = None,
        instance: str = "",
    ) -> AsyncIterator[None]:
        """
        Let `reader` join for the block, without a slot; see `Connection.join`.

        Waits at the end until the lease is released, so that a client that reconnects
        at once, to any node, does not exceed its player's limit.
        """
        connection = Connection(self, has_slot=False)
        try:
            await connection.join(log, reader, caller=caller, instance=instance)
            yield
        finally:
            lease = connection.lease
            connection.leave()
            if lease is not None:
                await asyncio.shield(self._release_lease(lease))

    async def note_use(self, log: Log, reader: Reader) -> None:
        """Note that a reader's device is in use, if the client has named it."""
        if self._devices is None or not reader.device:
            return
        # If this fails, notifications for the latest device go to the previous one.
        with contextlib.suppress(*STORE_FAILURES):
            await self._devices.note_use(log, reader.connection, reader.device)

    async def join(
        self,
        connection: Connection,
        log: Log,
        reader: Reader,
        *,
        caller: Caller | None = None,
        instance: str = "",
    ) -> None:
        """Take a lease and let `reader` follow its log; see `Connection.join`."""
        connection.caller = caller
        pending_join = self._stream_audiences.begin_join(log)
        try:
            connection.lease, replies = await self._take_lease(
                pending_join, reader, instance
            )
        except BaseException:
            self._stream_audiences.abort_join(pending_join)
            raise
        await self._stream_audiences.finish_join(pending_join, reader, replies)
        connection.reader = reader
        self.connection_log.opened(log, reader)
        if (stream := reader.stream) is not None:
            due_in_s = stream.due_in_s(time.monotonic(), time.time())
            self._timer_wheel.add(connection, due_in_s)
        if reader.device:
            await self.note_use(log, reader)
        if caller is not None and self._revocation_check is not None:
            self._revocation_check.add(reader, caller)
        if self.draining:
            # It joined while `drain` was listing the readers.
            reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())

    def renew(self, connection: Connection, caller: Caller) -> None:
        """Use a new credential; see `Connection.renew`."""
        if connection.reader is not None:
            self._timer_wheel.add(connection)
            if self._revocation_check is not None:
                self._revocation_check.renew(connection.reader, caller)

    def failed_renewal(
        self, connection: Connection, error: errors.Unauthenticated
    ) -> None:
        """Count a refused credential; see `Connection.failed_renewal`."""
        if connection.reader is not None:
            self.connection_log.failed_renewal(connection.reader, error)

    def due_sooner(self, connection: Connection) -> None:
        """Tick a connection soon; see `Connection.due_sooner`."""
        if connection.reader is not None:
            self._timer_wheel.due_sooner(connection, self._send_age_s / 2)

    def close_soon(self, close: Callable[[], object]) -> bool:
        """Close a connection in a later turn; see `Connection.close_soon`."""
        if self._closings.take():
            return False
        self._closings.add(close)
        return True

    def release(self, connection: Connection, *, opened: bool) -> None:
        """Release everything that a connection holds; see `Connection.leave`."""
        try:
            self._release_log(connection)
            if connection.on_leave is not None:
                connection.on_leave(opened)
        finally:
            if connection.has_slot:
                self._slots.release()
                if not self._slots.in_use:
                    self._empty.set()

    def _release_log(self, connection: Connection) -> None:
        reader, connection.reader = connection.reader, None
        lease, connection.lease = connection.lease, None
        if lease is None:
            return
        try:
            if reader is not None:
                self._detach(lease.log, reader)
        finally:
            self._leases.release_soon(lease)

    def _detach(self, log: Log, reader: Reader) -> None:
        if self._revocation_check is not None:
            self._revocation_check.remove(reader)
        followed = self._stream_audiences.detach(log, reader)
        self._departures.do(
            partial(self._departed, log, reader, reader.ended, followed)
        )

    def _departed(
        self,
        log: Log,
        reader: Reader,
        ended: Disconnect | None,
        followed: Sequence[AudienceSubscription],
    ) -> None:
        """Report and tidy up after a reader that has left; `ended` says why."""
        self._stream_audiences.unsubscribe(log, followed)
        self.connection_log.closed(log, reader, ended, followed)
        if self._devices is not None and reader.device:
            forgetting = asyncio.create_task(self._forget_device(log, reader))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgetting.discard)

    async def _forget_device(self, log: Log, reader: Reader) -> None:
        assert self._devices is not None
        with contextlib.suppress(*STORE_FAILURES):
            await self._devices.forget(log, reader.connection)

    async def _take_lease(
        self, pending_join: PendingJoin, reader: Reader, instance: str
    ) -> tuple[Lease, list[Reply]]:
        try:
            return await self._leases.acquire(
                pending_join.log,
                reader.connection,
                instance=instance,
                newcomer=pending_join.newcomer,
                commands=pending_join.commands,
            )
        except LimitReached as refused:
            raise self._count_refusal(refused) from None

    async def _release_lease(self, lease: Lease) -> None:
        await self._leases.release(lease)
        if self._forgetting:
            await asyncio.wait(self._forgetting)

    def _count_refusal(self, refused: LimitReached) -> LimitReached:
        self.counters.refusals[refused.limit.name.lower()] += 1
        return refused

    async def run(self) -> None:
        """Run leases, catch-up and timers until cancelled; raise if one fails."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leases.run(), name="leases")
                tasks.create_task(self._catch_up.run(), name="catch-up")
                tasks.create_task(self._tick(), name="timers")
        finally:
            self._closings.finish()
            self._departures.finish()
            # Connections that the host has aborted have no coroutine that waits for
            # the release of their leases.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_GRACE_S):
                    await self._leases.wait_released()

    async def drain(self) -> None:
        """
        Admit no more connections, and close all, spread over the drain window.

        A reader gets its notifications until it is closed. Returns when the last
        connection has left, or a second after the window if some have not.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self._drain_s + DRAIN_GRACE_S):
                await self._close_readers(list(self._catch_up.hub.all_readers()))
                await self._empty.wait()
        except TimeoutError:
            _logger.warning("%d connections still open after the drain", self.open)
        await self._leases.leave()

    async def _close_readers(self, readers: list[Reader]) -> None:
        random.shuffle(readers)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for i, reader in enumerate(readers):
            due_s = begun_s + self._drain_s * i / len(readers)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), due_s - loop.time())
            if self._empty.is_set():
                return
            try:
                reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())
            except Exception:  # Of this reader; the others have to be told, too.
                _logger.exception("could not end a reader")

    async def _tick(self) -> None:
        while True:
            is_more = self._timer_wheel.advance(
                time.monotonic(), time.time(), ticked_max=TICKED_MAX
            )
            if not is_more:
                await asyncio.sleep(TICK_S)
            # uvloop runs timers before it reads. After a stall of this process, let it
            # first read and write what has become possible meanwhile.
            await asyncio.sleep(0)


class Connection:
    """
    The resources of one connection: a slot of the node, a lease, and a reader.

    `leave` releases those that were taken so far, exactly once, without waiting and
    without failing. A ``with`` block calls it at the end, however the block ends. After
    `stay` it does not: a connection that outlives its coroutine calls `leave` itself
    when it is lost.
    """

    __slots__ = (
        "_admission",
        "_is_staying",
        "caller",
        "due",
        "has_slot",
        "lease",
        "on_leave",
        "reader",
    )

    def __init__(self, admission: Admission, *, has_slot: bool) -> None:
        self._admission: Admission | None = admission
        self._is_staying = False
        self.has_slot = has_slot
        self.lease: Lease | None = None
        self.reader: Reader | None = None
        """The reader, while it follows its player's log."""
        self.caller: Caller | None = None
        """The caller whose credential the connection uses."""
        self.due = 0
        self.on_leave: Callable[[bool], None] | None = None
        """Called with whether the connection was opened or refused."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if not self._is_staying:
            self.leave(opened=not isinstance(error, Error))

    def join(
        self,
        log: Log,
        reader: Reader,
        *,
        caller: Caller | None = None,
        instance: str = "",
    ) -> Awaitable[None]:
        """
        Take a lease of the player's, and let `reader` follow the player's log.

        With a `caller` the reader ends when the caller's credential is revoked.
        `leave` has to be called even if this raises or is cancelled. With an `instance`
        the lease replaces another one of the same instance.

        Raises:
            LimitReached: The player has no free lease.
            StoreUnavailable: The store cannot be reached.

        """
        assert self._admission is not None
        return self._admission.join(self, log, reader, caller=caller, instance=instance)

    def renew(self, caller: Caller) -> None:
        """Use a new credential of the same player from now on."""
        self.caller = caller
        if self._admission is not None:
            self._admission.renew(self, caller)

    def failed_renewal(self, error: errors.Unauthenticated) -> None:
        """Count a new credential that was refused."""
        if self._admission is not None:
            self._admission.failed_renewal(self, error)

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Let the stream do what is due; see `hub.Stream`. Never raises."""
        reader = self.reader
        stream = None if reader is None else reader.stream
        if reader is None or stream is None:
            return None
        try:
            return stream.tick(now_s, unix_s)
        except Exception:  # Of this stream; the others have to be ticked, too.
            _logger.exception("the timer of a stream failed; the stream is closed")
        try:
            reader.end(errors.RESYNC)
        except Exception:
            _logger.exception("could not close a stream; it is no longer ticked")
        return None

    def due_sooner(self) -> None:
        """Have the stream ticked soon, because bytes have begun to queue."""
        if self._admission is not None:
            self._admission.due_sooner(self)

    def stay(self) -> None:
        """Outlive the ``with`` block. The caller has to call `leave` later."""
        self._is_staying = True

    def close_soon(self, close: Callable[[], object]) -> bool:
        """
        Call `close` in a later turn of the event loop if this one has no room for it.

        Returns whether it does. If not, the caller closes the connection now.
        """
        return self._admission is not None and self._admission.close_soon(close)

    def leave(self, *, opened: bool = True) -> None:
        """Release everything. A second call does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.release(self, opened=opened)


def _drain_delay_ms() -> int:
    return random.randrange(1, DRAIN_DELAY_MS)

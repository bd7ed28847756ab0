"""
Being let in to listen, and being let go.

Decides whether a stream or a held poll may open on this node, takes the player's lease,
and gives every slot back exactly once, however the listening ends. What a connection
holds is a `Connection`. The coroutine that serves the connection holds it by a ``with``
block, so that there is nothing a client can do, or a response that never starts can
leave undone, that skips the end of the block; a stream that leaves its coroutine behind
takes the promise over in the same turn of the loop, and keeps it when its connection is
lost. Knows the node's limits, leases and feeds. Knows nothing of transports.

It also keeps the time: heartbeats, ends of credentials, and the staged drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ... import errors
from ...config import Config
from ...core.access.rights import Caller
from ...core.counters import Counters
from ...core.limits import RateLimiter, Slots
from ...errors import Draining, Error, Limit, LimitReached, Unavailable
from ...hub import Reader
from ...model import Log, Topic
from ...store.client.connection import Reply
from ...store.presence.devices import Devices
from ...store.presence.leases import Lease, Leases
from ..access.revocation import RevocationCheck
from .admission_queue import AdmissionQueue
from .catch_up import CatchUp
from .connection_log import ConnectionLog
from .stream_audiences import PendingJoin
from .timer_wheel import TICK_S, TimerWheel

__all__ = ["JOINING_MAX", "Admission", "Connection"]

DRAIN_GRACE_S: Final = 1.0
DRAIN_DELAY_MS: Final = 2_000
"""Readers come back within this, at random: the other nodes meet no wall of them."""

JOINING_MAX: Final = 256
"""Connections that join at once; the others wait for their turn. When thousands come
in a moment, all of them would else be served at the same time, and so late that their
clients have given up and come again: then it is all done for nobody."""

JOINING_WAIT_MAX_S: Final = 8.0
"""Most client libraries give a handshake ten seconds."""

_logger = logging.getLogger(__name__)


class Admission:
    """
    The listeners of this node.

    Args:
        catch_up: What keeps them complete.
        leases: What counts them per player.
        config: The limits.
        revocation_check: What ends those whose credential is taken back.
        devices: What knows which device was used last.
        figures: What counts them.

    """

    def __init__(
        self,
        catch_up: CatchUp,
        leases: Leases,
        config: Config,
        revocation_check: RevocationCheck | None = None,
        devices: Devices | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self._connection_log = ConnectionLog()
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
        """To be held while a connection joins, first come, first served."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._timer_wheel = TimerWheel(time.monotonic())
        self._forgetting: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def node(self) -> str:
        """The node's name, random and new with every start."""
        return self._leases.node

    @property
    def open(self) -> int:
        """Connections that hold a slot of this node."""
        return self._slots.in_use

    def admit(self) -> Connection:
        """
        Take one of the node's slots for a connection; `Connection.leave` gives it back.

        Raises:
            Draining: The node is going away.
            LimitReached: Connections come too fast or would wait for too long, or the
                node is full.

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
        """Let a reader listen to these topics as well; see `StreamAudiences`."""
        await self._stream_audiences.listen_to(log, reader, topics)

    def new_connection(self) -> str:
        """Return a name for a connection, to be used in `listen`."""
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
        Let `reader` be a listener for the block; see `Connection.join`.

        Behind the block its lease has been given back, so that whoever comes again at
        once, on another node, is not one too many. It takes no slot.
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
        """Note that a reader's device is in use, if it has said which it is."""
        if self._devices is None or not reader.device:
            return
        # The device that was used before gets some more, and that is all.
        with contextlib.suppress(Unavailable):
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
        """Take a lease for `reader` and let it follow; see `Connection.join`."""
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
        self._connection_log.opened(log, reader)
        self._timer_wheel.add(connection)
        await self.note_use(log, reader)
        if caller is not None and self._revocation_check is not None:
            self._revocation_check.add(reader, caller)
        if self.draining:
            # It was on its way in when `drain` looked who is here.
            reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())

    def renew(self, connection: Connection, caller: Caller) -> None:
        """Let a connection go by a fresh credential; see `Connection.renew`."""
        if connection.reader is not None:
            self._timer_wheel.add(connection)
            if self._revocation_check is not None:
                self._revocation_check.renew(connection.reader, caller)

    def due_sooner(self, connection: Connection) -> None:
        """Look at a connection's reader soon; see `Connection.due_sooner`."""
        if connection.reader is not None:
            self._timer_wheel.due_sooner(connection, self._send_age_s / 2)

    def release(self, connection: Connection, *, opened: bool) -> None:
        """Take back what a connection holds; see `Connection.leave`."""
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
        self._stream_audiences.leave(log, reader)
        self._connection_log.closed(log, reader)
        if self._devices is not None and reader.device:
            forgetting = asyncio.create_task(self._forget_device(log, reader))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgetting.discard)

    async def _forget_device(self, log: Log, reader: Reader) -> None:
        assert self._devices is not None
        with contextlib.suppress(Unavailable):
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
        """Keep leases, feeds and time; runs until cancelled, raises when broken."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leases.run(), name="leases")
                tasks.create_task(self._catch_up.run(), name="catch-up")
                tasks.create_task(self._tick(), name="timers")
        finally:
            # Those who were cut off with the host have left no coroutine that waits.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_GRACE_S):
                    await self._leases.wait_released()

    async def drain(self) -> None:
        """
        Let nobody in, and send everybody away, spread over the drain window.

        A reader gets its notifications until its turn comes. Returns when the last one
        has gone, or a second after the window when some do not take their leave.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self._drain_s + DRAIN_GRACE_S):
                await self._close_readers(list(self._catch_up.hub.all_readers()))
                await self._empty.wait()
        except TimeoutError:
            _logger.warning("%d connections did not take their leave", self.open)
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
            reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._timer_wheel.advance(time.monotonic(), time.time())


class Connection:
    """
    What one connection holds of this node: a slot, then a lease, then its feed.

    `leave` gives back what was taken so far, exactly once, without waiting and without
    failing. Used as a block it leaves at the end of it, however that ends, unless
    somebody has called `stay` within, and with that has promised to call `leave`: a
    connection that lives on without a coroutine, when it is lost.
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
        """What follows its player's log, while it does."""
        self.caller: Caller | None = None
        """By whose credential it listens."""
        self.due = 0
        self.on_leave: Callable[[bool], None] | None = None
        """Called with whether anything was opened; a refusal opens nothing."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if not self._is_staying:
            self.leave(opened=not isinstance(error, Error))

    async def join(
        self,
        log: Log,
        reader: Reader,
        *,
        caller: Caller | None = None,
        instance: str = "",
    ) -> None:
        """
        Count `reader` among its player's listeners and let it follow the log.

        With a `caller` it ends when that one's credential is taken back. Whatever this
        raises, and wherever it is cancelled, `leave` is due all the same.

        Raises:
            LimitReached: The player has all the listeners it may have.
            StoreUnavailable: Neither can be done now.

        """
        assert self._admission is not None
        await self._admission.join(self, log, reader, caller=caller, instance=instance)

    def renew(self, caller: Caller) -> None:
        """Go by a fresh credential of the same player's from here on."""
        self.caller = caller
        if self._admission is not None:
            self._admission.renew(self, caller)

    def tick(self, now_s: float, unix_s: float) -> float | None:
        """Let the stream do what is due; see `hub.Stream`."""
        stream = None if self.reader is None else self.reader.stream
        return None if stream is None else stream.tick(now_s, unix_s)

    def due_sooner(self) -> None:
        """Have the reader looked at soon: what it was given has begun to wait."""
        if self._admission is not None:
            self._admission.due_sooner(self)

    def stay(self) -> None:
        """Go on behind the end of the block: whoever calls this calls `leave`."""
        self._is_staying = True

    def leave(self, *, opened: bool = True) -> None:
        """Give everything back. A second call does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.release(self, opened=opened)


def _drain_delay_ms() -> int:
    return random.randrange(1, DRAIN_DELAY_MS)

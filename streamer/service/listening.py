"""
Being let in to listen, and being let go.

Decides whether a stream or a held poll may open on this node, takes the player's lease,
and gives every slot back exactly once, however the listening ends: slots are held by
``with`` blocks of the coroutine that serves the connection, so that there is nothing a
client can do, or a response that never starts can leave undone, that skips the end of
the block. Knows the node's limits, leases and feeds. Knows nothing of transports.

It also keeps the time: heartbeats, ends of credentials, and the staged drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from .. import errors
from ..config import Config
from ..core.access import Caller
from ..core.limits import Rate, Slots
from ..errors import Draining, Limit, Refused, Unavailable
from ..hub import Reader
from ..model import Log
from ..store.devices import Devices
from ..store.leases import Lease, Leases
from .feeds import Feeds
from .sweep import Sweep

__all__ = ["Listening"]

TICK_S: Final = 1.0
DRAIN_GRACE_S: Final = 1.0
DRAIN_DELAY_MS: Final = 2_000
"""Readers come back within this, at random: the other nodes meet no wall of them."""

_logger = logging.getLogger(__name__)


class Listening:
    """
    The listeners of this node.

    Args:
        feeds: What keeps them complete.
        leases: What counts them per player.
        config: The limits.
        sweep: What ends those whose credential is taken back.
        devices: What knows which device was used last.

    """

    def __init__(
        self,
        feeds: Feeds,
        leases: Leases,
        config: Config,
        sweep: Sweep | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._feeds = feeds
        self._leases = leases
        self._sweep = sweep
        self._devices = devices
        self._drain_s = config.drain_s
        self._slots = Slots(config.connections_max, Limit.CONNECTIONS_PER_NODE)
        self._rate = Rate(config.connects_per_s_max, burst=config.connects_per_s_max)
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False

    @property
    def node(self) -> str:
        """The node's name, random and new with every start."""
        return self._leases.node

    @property
    def open(self) -> int:
        """Connections that hold a slot of this node."""
        return self._slots.taken

    @contextmanager
    def admit(self) -> Iterator[None]:
        """
        Hold one of the node's slots for a connection.

        Raises:
            Draining: The node is going away.
            Refused: Connections come too fast, or the node is full.

        """
        if self.draining:
            raise Draining
        if not self._rate.allow(time.monotonic()):
            raise Refused(Limit.CONNECTS_PER_SECOND)
        with self._slots.hold():
            self._empty.clear()
            try:
                yield
            finally:
                if self._slots.taken == 1:
                    self._empty.set()

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
        Count `reader` among its player's listeners and let it follow the log.

        With a `caller` it ends when that one's credential is taken back.

        Raises:
            Refused: The player has all the listeners it may have.
            StoreAway: Neither can be done now.

        """
        lease = await self._leases.take(log, reader.connection, instance=instance)
        watching = contextlib.ExitStack()
        try:
            async with self._feeds.follow(log, reader):
                await self.used(log, reader)
                if caller is not None and self._sweep is not None:
                    watching.enter_context(self._sweep.watch(reader, caller))
                if self.draining:
                    # It was on its way in when `drain` looked who is here.
                    reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())
                yield
        finally:
            watching.close()
            await asyncio.shield(self._leave(log, reader, lease))

    async def used(self, log: Log, reader: Reader) -> None:
        """Note that a reader's device is in use, if it has said which it is."""
        if self._devices is None or not reader.device:
            return
        # The device that was used before gets some more, and that is all.
        with contextlib.suppress(Unavailable):
            await self._devices.used(log, reader.connection, reader.device)

    async def _leave(self, log: Log, reader: Reader, lease: Lease) -> None:
        await self._leases.drop(lease)
        if self._devices is not None and reader.device:
            with contextlib.suppress(Unavailable):
                await self._devices.gone(log, reader.connection)

    def renew(self, reader: Reader, caller: Caller) -> None:
        """Go by a fresh credential of the same player's from here on."""
        if self._sweep is not None:
            self._sweep.renew(reader, caller)

    async def run(self) -> None:
        """Keep leases, feeds and time; runs until cancelled, raises when broken."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._leases.run(), name="leases")
            tasks.create_task(self._feeds.run(), name="feeds")
            tasks.create_task(self._tick(), name="clock")

    async def drain(self) -> None:
        """
        Let nobody in, and send everybody away, spread over the drain window.

        A reader gets its notifications until its turn comes. Returns when the last one
        has gone, or a second after the window when some do not take their leave.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self._drain_s + DRAIN_GRACE_S):
                await self._send_away(list(self._feeds.hub.all_readers()))
                await self._empty.wait()
        except TimeoutError:
            _logger.warning("%d connections did not take their leave", self.open)
        await self._leases.leave()

    async def _send_away(self, readers: list[Reader]) -> None:
        random.shuffle(readers)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for i, reader in enumerate(readers):
            turn_s = begun_s + self._drain_s * i / len(readers)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), turn_s - loop.time())
            if self._empty.is_set():
                return
            reader.end(errors.DRAINING, delay_ms=_drain_delay_ms())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now_s, unix_s = time.monotonic(), time.time()
            for reader in self._feeds.hub.all_readers():
                reader.tick(now_s, unix_s)


def _drain_delay_ms() -> int:
    return random.randrange(1, DRAIN_DELAY_MS)

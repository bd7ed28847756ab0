"""
Whether this node delivers: shown, not concluded.

Decides readiness. A connection that answers PING may have been forgotten by the store,
or hang on a replica that nothing reaches; publishes are acknowledged all the same, and
every lamp is green. So a notification is published to a log of the node's own, through
the same script and feed as everybody's, and has to come back live. While it does not,
the node is not ready, and its feed is connected anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from ...core.counters import WRITE_S, Histogram
from ...core.streams.subscription import History, ReadFrom, Start
from ...errors import Unavailable
from ...model import Entry, Log, Player
from ...store.client.connection import RedisConnection
from ...store.client.replicated import Replicated
from ...store.logs.inbox import Inbox
from ...store.logs.settings import LogSettings
from .catch_up import PROBE_APP, CatchUp
from .poll_waiter import PollWaiter

__all__ = ["Probe"]

INTERVAL_S: Final = 5.0
PATIENCE_S: Final = 5.0
"""How long a probe may take: the relay's own ping finds a dead peer in 10 s."""

RETRY_S: Final = (0.002, 0.05)
"""
Between attempts: the first wait, and the longest. The feed of a node that starts is
connected within a few ms, and until the first probe the node is not ready.
"""

KEPT_MS: Final = 60_000

_FRAGMENT: Final = b'"type":"probe"}'

_logger = logging.getLogger(__name__)


class _Echo(PollWaiter):
    """Hears live entries only: history works also for a node that is deaf."""

    def offer(self, entry: Entry) -> None:
        super().offer(entry)
        self.woken.set()

    def on_history(
        self, read_from: ReadFrom, history: History, *, unread: int, marks: int
    ) -> None:
        self.subscription.on_history(read_from, history)


class Probe:
    """
    The node's probe.

    Args:
        redis: The way to the store.
        catch_up: What has to hear it.
        node: The node's name.
        confirmed: The way of publishes, where replicas have to confirm them.
        took_s: What counts how long probes take.

    """

    def __init__(
        self,
        redis: RedisConnection,
        catch_up: CatchUp,
        node: str,
        *,
        confirmed: Replicated | None = None,
        took_s: Histogram | None = None,
    ) -> None:
        self._took_s = took_s or Histogram(WRITE_S)
        self._inbox = Inbox(
            redis, LogSettings(retention_ms=KEPT_MS, entries_max=1), confirmed=confirmed
        )
        self._catch_up = catch_up
        self._log = Log(PROBE_APP, Player(node))
        self._returned_at_s = float("-inf")

    @property
    def is_delivering(self) -> bool:
        """Whether a probe came back, in time, and the next one still could."""
        is_late = time.monotonic() - self._returned_at_s >= INTERVAL_S + PATIENCE_S
        return self._catch_up.connected and not is_late

    async def run(self) -> None:
        """Send probes; runs until cancelled."""
        delay_s, delay_max_s = RETRY_S
        while True:
            try:
                await self._listen()
            except Unavailable:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, delay_max_s)

    async def _listen(self) -> None:
        echo = _Echo(Start.LATEST, "probe")
        async with self._catch_up.stream_audiences.follow(self._log, echo):
            while True:
                await self._send(echo)
                await asyncio.sleep(INTERVAL_S)

    async def _send(self, echo: _Echo) -> None:
        echo.woken.clear()
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._inbox.append(self._log, [_FRAGMENT])
                await echo.woken.wait()
        except TimeoutError:
            self._returned_at_s = float("-inf")
            _logger.error("this node is deaf: a probe was stored and not heard")
            self._catch_up.reconnect()
        else:
            self._returned_at_s = time.monotonic()
            self._took_s.observe(self._returned_at_s - begun_s)

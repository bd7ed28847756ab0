"""
The probe: proof that this node delivers.

Decides readiness. The store may have forgotten a connection that still answers PING, or
the connection may lead to a replica that gets no announcements. Publishes are
acknowledged all the same, and every other check passes. So the node publishes a
notification to a log of its own, by the same script and channel as any other, and has
to receive it live. Until it does, the node is not ready, and it reconnects Pub/Sub.

A full store accepts probes: it serves readers, and all nodes share it, so a node that
is not ready would help nobody. For the same reason a node on a cluster is ready while
one primary serves: it tries a log of another one when a probe is refused.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ...core.counters import WRITE_S, Histogram
from ...core.streams.subscription import History, ReadFrom, Start
from ...core.streams.unread_count import InboxCount
from ...errors import StoreUnavailable
from ...model import Entry, Log, Player
from ...store.client.connection import FULL, RedisConnection
from ...store.client.faults import STORE_FAILURES, StoreFaults
from ...store.client.replicated import Replicated
from ...store.logs.inbox import Inbox
from ...store.logs.settings import LogSettings
from .catch_up import PROBE_APP, CatchUp
from .poll_waiter import PollWaiter

__all__ = ["Probe"]

INTERVAL_S: Final = 5.0
PATIENCE_S: Final = 5.0
"""How long a probe may take; Pub/Sub's own ping detects a dead peer in 10 s."""

RETRY_S: Final = (0.002, 0.5)
"""
The first and the longest wait between attempts. A node that starts has its Pub/Sub
connected within a few milliseconds, and is not ready before its first probe.
"""

KEPT_MS: Final = 60_000
"""Retention of probes."""

LOGS_MAX: Final = 64
"""Names of logs, at most, that a node tries on a cluster of which a part is away."""

PART: Final = "probe"
"""The name of this part in `StoreFaults`."""

_FRAGMENT: Final = b'"type":"probe"}'


class _Echo(PollWaiter):
    """Wakes on live entries only: a read works without announcements, too."""

    def offer(self, entry: Entry) -> None:
        super().offer(entry)
        self.woken.set()

    def on_history(
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        self.subscription.on_history(read_from, history)


class Probe:
    """
    The node's probe.

    Args:
        redis: The connection to the store.
        catch_up: Receives the probe.
        node: The node's name.
        confirmed: Publishes with the confirmation of replicas, if that is required.
        took_s: Histogram of the seconds that probes take.
        faults: Told when a probe is refused, or does not arrive.

    """

    def __init__(
        self,
        redis: RedisConnection,
        catch_up: CatchUp,
        node: str,
        *,
        confirmed: Replicated | None = None,
        took_s: Histogram | None = None,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._took_s = took_s or Histogram(WRITE_S)
        self._inbox = Inbox(
            redis,
            LogSettings(retention_ms=KEPT_MS, entries_max=1),
            confirmed=confirmed,
            when_full=True,
        )
        self._catch_up = catch_up
        self._redis = redis
        self._node = node
        self._failures = 0
        self._log = Log(PROBE_APP, Player(node))
        self._returned_at_s = float("-inf")

    @property
    def is_delivering(self) -> bool:
        """Whether the last probe was received in time and the next one is not late."""
        is_late = time.monotonic() - self._returned_at_s >= INTERVAL_S + PATIENCE_S
        return self._catch_up.connected and not is_late

    async def run(self) -> None:
        """Send probes until cancelled."""
        delay_s = RETRY_S[0]
        while True:
            sent = self._returned_at_s
            try:
                await self._listen()
            except STORE_FAILURES as error:
                self._refused(error)
                await self._try_elsewhere()
                if sent != self._returned_at_s:
                    delay_s = RETRY_S[0]
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_S[1])

    async def _try_elsewhere(self) -> None:
        """Take another log, if its primary may be one of several that serves."""
        try:
            servers = await self._redis.servers()
        except STORE_FAILURES:
            return
        if len(servers) > 1:
            self._failures += 1
            name = f"{self._node}.{self._failures % LOGS_MAX}"
            self._log = Log(PROBE_APP, Player(name))

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
            self._faults.failed(
                PART,
                "delivers nothing: no announcements arrive, a probe was stored but not "
                "received",
            )
            self._catch_up.reconnect()
        else:
            self._faults.passed(PART)
            self._returned_at_s = time.monotonic()
            self._took_s.observe(self._returned_at_s - begun_s)

    def _refused(self, error: Exception) -> None:
        if isinstance(error, StoreUnavailable) and error.words.startswith(FULL):
            # Only writes are: the connection does not count that as unavailable.
            self._faults.failed(PART, f"takes no writes: {error.words}")
        else:
            self._faults.refused(PART, error)

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

from ..core.subscription import History, Place, Start
from ..errors import Unavailable
from ..model import App, Entry, Log, Player
from ..store.inbox import Inbox
from ..store.link import Link
from ..store.replicated import Replicated
from .feeds import Feeds
from .watcher import Watcher

__all__ = ["Probe"]

INTERVAL_S: Final = 5.0
PATIENCE_S: Final = 5.0
"""How long a probe may take: the relay's own ping finds a dead peer in 10 s."""

RETRY_S: Final = 0.05
KEPT_MS: Final = 60_000

# No app can be called that (`model.parse_app`), so nobody can read or write it.
_APP: Final = App(".probe")
_FRAGMENT: Final = b'"type":"probe"}'

_logger = logging.getLogger(__name__)


class _Echo(Watcher):
    """Hears live entries only: history works also for a node that is deaf."""

    def offer(self, entry: Entry) -> None:
        super().offer(entry)
        self.woken.set()

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        self.subscription.history(asked, history)


class Probe:
    """
    The node's probe.

    Args:
        link: The way to the store.
        feeds: What has to hear it.
        node: The node's name.
        confirmed: The way of publishes, where replicas have to confirm them.

    """

    def __init__(
        self,
        link: Link,
        feeds: Feeds,
        node: str,
        *,
        confirmed: Replicated | None = None,
    ) -> None:
        self._inbox = Inbox(
            link, confirmed=confirmed, retention_ms=KEPT_MS, entries_max=1
        )
        self._feeds = feeds
        self._log = Log(_APP, Player(node))
        self._heard_at_s = float("-inf")

    @property
    def heard(self) -> bool:
        """Whether a probe came back, in time, and the next one still could."""
        late = time.monotonic() - self._heard_at_s >= INTERVAL_S + PATIENCE_S
        return self._feeds.connected and not late

    async def run(self) -> None:
        """Send probes; runs until cancelled."""
        while True:
            try:
                await self._listen()
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        echo = _Echo(Start.LATEST, "probe")
        async with self._feeds.follow(self._log, echo):
            while True:
                await self._send(echo)
                await asyncio.sleep(INTERVAL_S)

    async def _send(self, echo: _Echo) -> None:
        echo.woken.clear()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._inbox.append(self._log, [_FRAGMENT])
                await echo.woken.wait()
        except TimeoutError:
            self._heard_at_s = float("-inf")
            _logger.error("this node is deaf: a probe was stored and not heard")
            self._feeds.reconnect()
        else:
            self._heard_at_s = time.monotonic()

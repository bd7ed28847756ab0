"""
A reader that is not sent anything: it only wants to know that there is something.
"""

from __future__ import annotations

import asyncio

from ..core.subscription import History, Place, Subscription
from ..errors import Disconnect
from ..model import Entry

__all__ = ["Watcher"]


class Watcher:
    """
    A reader whose `woken` is set when an entry follows its place, or it is ended.

    Whoever waits for that reads the log, which is where the truth is.
    """

    joining = False
    """It reads by itself, in portions, so it is never too far behind."""
    congested = False
    device = ""

    def __init__(self, place: Place, connection: str) -> None:
        self.subscription = Subscription(place)
        self.connection = connection
        self.woken = asyncio.Event()
        self.ended: Disconnect | None = None
        """Why it was ended, if it was."""

    def offer(self, entry: Entry) -> None:
        if self.subscription.live(entry).entries:
            self.woken.set()

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        delivery = self.subscription.history(asked, history)
        if delivery.entries or delivery.gap:
            self.woken.set()

    def marked(self, *, marks: int, unread: int, body: bytes) -> None:
        pass

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        # A poll is answered, with nothing; its client comes back as always.
        self.ended = self.ended or disconnect
        self.woken.set()

    def tick(self, now_s: float, unix_s: float) -> None:
        pass

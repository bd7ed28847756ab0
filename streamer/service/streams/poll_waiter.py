"""
A reader that is not sent anything: it only wants to know that there is something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...core.counters import Transport
from ...core.streams.audience_subscription import Strand
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Delivery, History, Place, Subscription
from ...errors import Disconnect
from ...model import Entry, Position, Topic

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
    topics: tuple[Topic, ...] = ()
    moved: Callable[[Any], None] | None = None

    def __init__(
        self,
        place: Cursor | Place,
        connection: str,
        transport: Transport | None = None,
    ) -> None:
        self.cursor = place if isinstance(place, Cursor) else None
        own = place.own if isinstance(place, Cursor) else place
        self.subscription = Subscription(own)
        self.strands: tuple[Strand, ...] = ()
        self.connection = connection
        self.transport = transport
        self.woken = asyncio.Event()
        self.ended: Disconnect | None = None
        """Why it was ended, if it was."""

    def knows(self, marks: int) -> bool:
        return True

    def take(self, entry: Entry, position: Position) -> None:
        self.subscription.live_at = position
        self.woken.set()

    def take_from(self, strand: Strand, entry: Entry) -> None:
        self.woken.set()

    def offer(self, entry: Entry) -> None:
        if self.subscription.live(entry).entries:
            self.woken.set()

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        delivery = self.subscription.history(asked, history)
        if delivery.entries or delivery.gap:
            self.woken.set()

    def manner(self) -> None:
        """It is written to by nobody."""

    def given(self, count: int, *, moved: bool) -> None:
        pass

    def cut(self) -> None:
        pass

    def fit(self, history: History) -> History:
        return history

    def hear(self, strand: Strand, delivery: Delivery) -> None:
        if delivery.gap or any(not entry.dead for entry in delivery.entries):
            self.woken.set()

    def passing(self, notification: bytes) -> None:
        """A poll answers with what is in the log."""

    def rewoven(self, strands: tuple[Strand, ...]) -> None:
        self.strands = strands

    def tell_cursor(self) -> None:
        pass

    def marked(self, *, marks: int, unread: int, body: bytes) -> None:
        pass

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        # A poll is answered, with nothing; its client comes back as always.
        self.ended = self.ended or disconnect
        self.woken.set()

    def tick(self, now_s: float, unix_s: float) -> None:
        pass

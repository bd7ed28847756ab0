"""
A reader that is not sent anything: it only wants to know that there is something.
"""

from __future__ import annotations

import asyncio

from ...core.counters import TransportCounters
from ...core.streams.audience_subscription import AudienceSubscription
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Delivery, History, ReadFrom, Subscription
from ...errors import Disconnect
from ...model import Entry, Position, Topic

__all__ = ["PollWaiter"]


class PollWaiter:
    """
    A reader whose `woken` is set when an entry follows its place, or it is ended.

    Whoever waits for that reads the log, which is where the truth is.
    """

    joining = False
    """It reads by itself, in portions, so it is never too far behind."""
    congested = False
    device = ""
    topics: tuple[Topic, ...] = ()
    stream = None
    """It is answered once and written to by nobody."""

    def __init__(
        self,
        read_from: Cursor | ReadFrom,
        connection: str,
        transport: TransportCounters | None = None,
    ) -> None:
        self.cursor = read_from if isinstance(read_from, Cursor) else None
        own = read_from.own if isinstance(read_from, Cursor) else read_from
        self.subscription = Subscription(own)
        self.audience_subscriptions: tuple[AudienceSubscription, ...] = ()
        self.connection = connection
        self.transport = transport
        self.woken = asyncio.Event()
        self.ended: Disconnect | None = None
        """Why it was ended, if it was."""

    def own_subscription(self) -> Subscription:
        return self.subscription

    def deliver_next(self, entry: Entry, position: Position) -> None:
        self.subscription.live_at = position
        self.woken.set()

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        self.woken.set()

    def offer(self, entry: Entry) -> None:
        if self.subscription.on_live(entry).entries:
            self.woken.set()

    def on_history(
        self, read_from: ReadFrom, history: History, *, unread: int, marks: int
    ) -> None:
        delivery = self.subscription.on_history(read_from, history)
        if delivery.entries or delivery.gap:
            self.woken.set()

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        if delivery.gap or any(not entry.ended for entry in delivery.entries):
            self.woken.set()

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        self.audience_subscriptions = audience_subscriptions

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        # A poll is answered, with nothing; its client comes back as always.
        self.ended = self.ended or disconnect
        self.woken.set()

"""
The reader behind a waiting poll.

Decides when a poll is answered: as soon as its log has an entry after its cursor.
Knows subscriptions. Knows nothing of what the answer contains.
"""

from __future__ import annotations

import asyncio

from ...core.counters import TransportCounters
from ...core.streams.audience_subscription import AudienceSubscription
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Delivery, History, ReadFrom, Subscription
from ...core.streams.unread_count import InboxCount
from ...errors import Disconnect
from ...model import Entry, Position, Topic

__all__ = ["PollWaiter"]


class PollWaiter:
    """
    A reader that sets `woken` when an entry follows its position, or when it ends.

    With `wakes_on_marks` also when the read marks may have changed. The poll then reads
    the log itself, which is the truth.
    """

    joining = False
    """A poll reads in portions, so it is never too far behind to be replayed."""
    congested = False
    device = ""
    topics: tuple[Topic, ...] = ()
    stream = None
    """A poll has no open stream: it is answered once."""

    def __init__(
        self,
        read_from: Cursor | ReadFrom,
        connection: str,
        transport: TransportCounters | None = None,
        *,
        wakes_on_marks: bool = False,
    ) -> None:
        self.cursor = read_from if isinstance(read_from, Cursor) else None
        own = read_from.own if isinstance(read_from, Cursor) else read_from
        self.subscription = Subscription(own)
        self.audience_subscriptions: tuple[AudienceSubscription, ...] = ()
        self.connection = connection
        self.transport = transport
        self._wakes_on_marks = wakes_on_marks
        self.woken = asyncio.Event()
        self.ended: Disconnect | None = None
        """Why it has ended, None while it has not."""

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
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        delivery = self.subscription.on_history(read_from, history)
        if delivery.entries or delivery.gap:
            self.woken.set()

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        if delivery.gap or any(not entry.ended for entry in delivery.entries):
            self.woken.set()

    def on_mark(self) -> None:
        """Note that the read marks, or the count of unread ones, may have changed."""
        if self._wakes_on_marks:
            self.woken.set()

    def set_audiences(
        self, audience_subscriptions: tuple[AudienceSubscription, ...]
    ) -> None:
        self.audience_subscriptions = audience_subscriptions

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        # The poll is answered with no notifications, and its client polls again.
        self.ended = self.ended or disconnect
        self.woken.set()

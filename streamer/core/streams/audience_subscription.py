"""
One audience's part of what a reader hears.

Decides which of an audience's entries reach a reader, and keeps its place among them.
Knows the subscription, and the reader it belongs to by a small protocol. Knows nothing
of where the entries come from.

A stream is woven of the player's own log and of the logs of its audiences. Each has a
subscription of its own, so each is complete and in order by itself; between logs the
order is that of arrival. A strand is what the hub has for a reader in an audience's
log, as it has the reader itself in the player's.

Where a strand is level with many others (`core.streams.broadcast_group`), its
subscription is not kept up to date: the crowd knows where all of them are. Whoever
wants the subscription itself makes the strand part with the others.
"""

from __future__ import annotations

from typing import Any, Protocol

from ...errors import Disconnect
from ...model import Entry, Log, Position
from .broadcast_group import Crowd, Manner
from .cursor import part_of
from .subscription import Delivery, History, Place, Start, State, Subscription
from .views import is_behind

__all__ = ["Listener", "Strand"]


class Listener(Protocol):
    """Whose strand it is."""

    ended: Disconnect | None
    """Why it has ended, if it has."""

    @property
    def joining(self) -> bool: ...

    @property
    def congested(self) -> bool: ...

    def fit(self, history: History) -> History:
        """Return as much of a portion of history as there is room for."""

    def hear(self, strand: Strand, delivery: Delivery) -> None:
        """Take what came in an audience's log."""

    def take_from(self, strand: Strand, entry: Entry) -> None:
        """Take the next live entry of an audience's log."""

    def manner(self) -> tuple[Manner, Any] | None:
        """Return how it is written to, and its sink; None where not with others."""

    def given(self, count: int, *, moved: bool) -> None:
        """
        Take over what was noted of a strand of its own while that was level.

        `count` entries were written to it that count as unread, and it may have `moved`
        since it was last told where it is.
        """

    def cut(self) -> None:
        """End, for want of room."""

    def passing(self, notification: bytes) -> None: ...

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None: ...


class Strand:
    """
    A reader's place in an audience's log.

    Args:
        log: The audience's.
        listener: The reader.
        place: Where it begins.
        joined: What is not behind this is for others.
        durable: Whether the player is a member, and not the stream alone.

    """

    __slots__ = (
        "_given",
        "_subscription",
        "begin",
        "crowd",
        "durable",
        "joined",
        "listener",
        "log",
    )

    def __init__(
        self,
        log: Log,
        listener: Listener,
        place: Place,
        *,
        joined: Position,
        durable: bool,
    ) -> None:
        self.log = log
        self.listener = listener
        self.joined = joined
        self.durable = durable
        self._subscription = Subscription(place)
        self._given = 0
        """What the crowd had been given before."""
        self.crowd: Crowd | None = None
        """With whom it is level, None while it is by itself."""
        self.begin: Position | None = None
        """Where it began, once the log has said so."""

    @property
    def subscription(self) -> Subscription:
        """Its place, to be worked with: it parts with those it was level with."""
        self.part()
        return self._subscription

    @property
    def live_at(self) -> Position | None:
        """As of its subscription."""
        crowd = self.crowd
        return self._subscription.live_at if crowd is None else crowd.at

    @property
    def place(self) -> Place:
        """As of its subscription."""
        return self.live_at or self._subscription.place

    @property
    def part_of_cursor(self) -> str:
        """What says in a cursor where it is; nothing while that is not known."""
        crowd = self.crowd
        if crowd is not None:
            return crowd.part_of_cursor
        place = self._subscription.place
        return part_of(self.log, place) if isinstance(place, Position) else ""

    @property
    def unread(self) -> int:
        """How many it was given while it is level that count as unread."""
        crowd = self.crowd
        return crowd.given - self._given if crowd and self.durable else 0

    def level_in(self, crowd: Crowd) -> None:
        """Be level with others from here on."""
        self.crowd = crowd
        self._given = crowd.given

    def part(self) -> None:
        """Be by itself from here on. Does nothing where it is."""
        crowd = self.crowd
        if crowd is not None:
            self._subscription.live_at = crowd.at
            count = self.unread
            self.crowd = None
            crowd.part(self)
            self.listener.given(count, moved=crowd.moved)

    @property
    def joining(self) -> bool:
        return self.begin is None

    @property
    def congested(self) -> bool:
        listener = self.listener
        if listener.joining:
            # The reader waits for each log to have begun, so that its waiting is no
            # reason to wait.
            return self.begin is not None or listener.ended is not None
        return listener.congested

    def take(self, entry: Entry, position: Position) -> None:
        listener = self.listener
        if listener.joining or listener.ended or not is_behind(self.joined, entry):
            self.offer(entry)
            return
        self._subscription.live_at = position
        listener.take_from(self, entry)

    def offer(self, entry: Entry) -> None:
        if self.listener.joining:
            # The stream has not begun: it will be read for.
            self.subscription.doubt()
            return
        delivery = self.subscription.live(entry)
        if delivery.entries:
            self.listener.hear(self, delivery)

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        if self.subscription.state is State.LIVE or asked != self.subscription.place:
            return
        history = self.listener.fit(history)
        delivery = self.subscription.history(asked, history)
        entries = [entry for entry in delivery.entries if is_behind(self.joined, entry)]
        first = self.begin is None
        if first:
            # With a gap to follow, the client is left where it was: cut off between
            # the two, it would otherwise never hear of the gap.
            gap = history.gap is not None and not isinstance(asked, Start)
            self.begin = asked if gap and isinstance(asked, Position) else history.start
        if first or entries or delivery.gap:
            self.listener.hear(self, delivery._replace(entries=entries))

    def passing(self, notification: bytes) -> None:
        self.listener.passing(notification)

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.listener.end(disconnect, delay_ms=delay_ms)

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
from .batch_writer import DeliveryProfile
from .cursor import part_of
from .subscription import Delivery, History, ReadFrom, Start, State, Subscription
from .views import is_after

__all__ = ["AudienceSubscription", "Group", "OpenStream", "StreamOwner"]


class OpenStream(Protocol):
    """A reader that is written to, as its subscriptions and their groups know it."""

    def trim_to_buffer(self, history: History) -> History:
        """Return as much of a portion of history as there is room for."""

    def delivery_profile(self) -> tuple[DeliveryProfile, Any] | None:
        """Return how it is written to, and its sink; None where not with others."""

    def add_group_count(self, count: int, *, cursor_dirty: bool) -> None:
        """
        Take over what was noted of a strand of its own while that was level.

        `count` entries were written to it that count as unread, and it may have `moved`
        since it was last told where it is.
        """

    def send_cursor(self) -> None:
        """Say where it is in all its logs, if there is somebody to tell."""

    def drop_slow(self) -> None:
        """End, for want of room."""

    def send_ephemeral(self, notification: bytes) -> None:
        """Take a notification that is in no log."""


class StreamOwner(Protocol):
    """Whose strand it is: a stream, or a held poll."""

    ended: Disconnect | None
    """Why it has ended, if it has."""

    @property
    def stream(self) -> OpenStream | None:
        """The reader itself, if it is written to; None for a poll."""

    @property
    def joining(self) -> bool: ...

    @property
    def congested(self) -> bool: ...

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        """Take what came in an audience's log."""

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        """Take the next live entry of an audience's log."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None: ...


class Group(Protocol):
    """The readers of an audience's log that are written to at once."""

    position: Position | None
    """Position of all of them."""
    delivered_count: int
    """Entries that there have been for them."""
    cursor_dirty: bool
    """Whether their cursors are due."""

    @property
    def cursor_part(self) -> str:
        """The part of their cursors for this audience."""

    def ungroup(self, sub: AudienceSubscription) -> None:
        """Take a reader out; `AudienceSubscription.leave_group` calls it."""


class AudienceSubscription:
    """
    A reader's place in an audience's log.

    Args:
        log: The audience's.
        owner: The reader.
        place: Where it begins.
        joined: What is not behind this is for others.
        is_member: Whether the player is a member, and not the stream alone.

    """

    __slots__ = (
        "_delivered_before",
        "began_at",
        "group",
        "is_member",
        "joined_at",
        "log",
        "owner",
        "subscription",
    )

    def __init__(
        self,
        log: Log,
        owner: StreamOwner,
        read_from: ReadFrom,
        *,
        joined_at: Position,
        is_member: bool,
    ) -> None:
        self.log = log
        self.owner = owner
        self.joined_at = joined_at
        self.is_member = is_member
        self.subscription = Subscription(read_from)
        self._delivered_before = 0
        """What the crowd had been given before."""
        self.group: Group | None = None
        """With whom it is level, None while it is by itself."""
        self.began_at: Position | None = None
        """Where it began, once the log has said so."""

    def own_subscription(self) -> Subscription:
        """Its place, to be worked with: it parts with those it was level with."""
        self.leave_group()
        return self.subscription

    @property
    def live_at(self) -> Position | None:
        """As of its subscription."""
        group = self.group
        return self.subscription.live_at if group is None else group.position

    @property
    def read_from(self) -> ReadFrom:
        """As of its subscription."""
        return self.live_at or self.subscription.read_from

    @property
    def cursor_part(self) -> str:
        """What says in a cursor where it is; nothing while that is not known."""
        group = self.group
        if group is not None:
            return group.cursor_part
        position = self.subscription.read_from
        return part_of(self.log, position) if isinstance(position, Position) else ""

    @property
    def grouped_unread(self) -> int:
        """How many it was given while it is level that count as unread."""
        group = self.group
        return (
            group.delivered_count - self._delivered_before
            if group and self.is_member
            else 0
        )

    def join_group(self, group: Group) -> None:
        """Be level with others from here on."""
        self.group = group
        self._delivered_before = group.delivered_count

    def leave_group(self) -> None:
        """Be by itself from here on. Does nothing where it is."""
        group = self.group
        if group is not None:
            self.subscription.live_at = group.position
            count, cursor_dirty = self.grouped_unread, group.cursor_dirty
            self.group = None
            group.ungroup(self)
            stream = self.owner.stream
            assert stream is not None
            stream.add_group_count(count, cursor_dirty=cursor_dirty)

    @property
    def joining(self) -> bool:
        return self.began_at is None

    @property
    def congested(self) -> bool:
        owner = self.owner
        if owner.joining:
            # The reader waits for each log to have begun, so that its waiting is no
            # reason to wait.
            return self.began_at is not None or owner.ended is not None
        return owner.congested

    def deliver_next(self, entry: Entry, position: Position) -> None:
        owner = self.owner
        if owner.joining or owner.ended or not is_after(self.joined_at, entry):
            self.offer(entry)
            return
        self.subscription.live_at = position
        owner.deliver_audience(self, entry)

    def offer(self, entry: Entry) -> None:
        if self.owner.joining:
            # The stream has not begun: it will be read for.
            self.own_subscription().mark_stale()
            return
        delivery = self.own_subscription().on_live(entry)
        if delivery.entries:
            self.owner.on_audience(self, delivery)

    def on_history(
        self, read_from: ReadFrom, history: History, *, unread: int, marks: int
    ) -> None:
        if (
            self.own_subscription().state is State.LIVE
            or read_from != self.own_subscription().read_from
        ):
            return
        stream = self.owner.stream
        if stream is not None:
            history = stream.trim_to_buffer(history)
        delivery = self.own_subscription().on_history(read_from, history)
        entries = [
            entry for entry in delivery.entries if is_after(self.joined_at, entry)
        ]
        begins = self.began_at is None
        if begins:
            # With a gap to follow, the client is left where it was: cut off between
            # the two, it would otherwise never hear of the gap.
            gap = history.gap is not None and not isinstance(read_from, Start)
            self.began_at = (
                read_from if gap and isinstance(read_from, Position) else history.start
            )
        if begins or entries or delivery.gap:
            self.owner.on_audience(self, delivery._replace(entries=entries))

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.owner.end(disconnect, delay_ms=delay_ms)

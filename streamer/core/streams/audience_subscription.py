"""
A reader's subscription to the log of one audience.

Decides which of an audience's entries reach a reader, and keeps the reader's position
among them. Knows the reader and the group by small protocols. Knows nothing of where
the entries come from.

A stream merges the player's own log with the logs of the player's audiences. Each log
has a subscription of its own, so the entries of each log are complete and in order;
between logs the order is that of arrival. In an audience's log, an
`AudienceSubscription` is what the hub knows of a reader; in the player's own log it is
the reader itself.

While a subscription is in a group (`core.streams.broadcast_group`), only the group
keeps the position, for all of its readers. `own_subscription` leaves the group first,
and so returns a subscription that is up to date.
"""

from __future__ import annotations

from typing import Any, Protocol

from ...errors import Disconnect
from ...model import Entry, Log, Position, Topic
from .batch_writer import DeliveryProfile
from .cursor import part_of
from .subscription import Delivery, History, ReadFrom, State, Subscription
from .unread_count import InboxCount
from .views import is_after

__all__ = ["AudienceSubscription", "Group", "OpenStream", "StreamOwner"]


class OpenStream(Protocol):
    """A reader with an open stream, as its subscriptions and their groups know it."""

    def trim_to_buffer(self, history: History) -> History:
        """Return as many entries of `history` as the send buffer has room for."""

    def delivery_profile(self) -> tuple[DeliveryProfile, Any] | None:
        """Return the profile and the sink, None if it cannot be in a group now."""

    def add_group_count(self, count: int, *, cursor_dirty: bool) -> None:
        """
        Take over the state that a group kept for one of its subscriptions.

        The group has written `count` entries to the stream that count as unread. With
        `cursor_dirty` the stream's cursor has changed since it was last sent.
        """

    def doubt_count(self, *, at_once: bool = False, is_told: bool = False) -> None:
        """Ask for a count of the inbox; see `Session.doubt_count`."""

    def send_cursor(self) -> None:
        """Send the stream's cursor, once the stream has begun."""

    def drop_slow(self) -> None:
        """End at once, because the send buffer is full."""

    def send_ephemeral(self, notification: bytes) -> None:
        """Send a notification, JSON, that is in no log."""


class StreamOwner(Protocol):
    """The reader that an `AudienceSubscription` belongs to: a stream or a poll."""

    topics: tuple[Topic, ...]
    """Topics that the reader has subscribed to, beside the player's own."""
    ended: Disconnect | None
    """Why the reader has ended, None while it has not."""

    @property
    def stream(self) -> OpenStream | None:
        """The reader itself if it has an open stream, None for a poll."""

    @property
    def joining(self) -> bool:
        """Whether one of its logs has not had its first read."""

    @property
    def congested(self) -> bool:
        """Whether it should get no history at the moment."""

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        """Take a delivery of an audience's log; `sub` is already past it."""

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        """Take a live entry of an audience's log; `sub` is already past it."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, and let the client reconnect after `delay_ms`."""


class Group(Protocol):
    """Grouped readers of an audience's log, as one of them knows them."""

    position: Position
    """The position of all grouped readers."""
    delivered_count: int
    """How many entries the group has delivered so far."""
    cursor_dirty: bool
    """Whether the group has moved since its readers were sent their cursors."""

    @property
    def cursor_part(self) -> str:
        """The part of the readers' cursors for this audience."""

    def ungroup(self, sub: AudienceSubscription) -> None:
        """Make a reader individual. To be called by `leave_group` only."""


class AudienceSubscription:
    """
    The subscription of one reader to an audience's log.

    Args:
        log: The audience's log.
        owner: The reader.
        read_from: Where the subscription begins.
        joined_at: The reader gets only entries after this position.
        is_member: Whether the player is a member of the audience. Otherwise the stream
            alone has subscribed, and its entries do not count as unread.

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
        "uncounted",
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
        """The group's `delivered_count` when this subscription joined."""
        self.group: Group | None = None
        """The group it is in, None while it is individual."""
        self.began_at: Position | None = None
        """The position at which it began, None until the first read."""
        self.uncounted: tuple[int, ...] = ()
        """Offsets of the last entries that count for nobody; see `unread_count`."""

    def own_subscription(self) -> Subscription:
        """Leave the group, if any, and return the subscription, now up to date."""
        self.leave_group()
        return self.subscription

    @property
    def live_at(self) -> Position | None:
        """See `Subscription.live_at`."""
        group = self.group
        return self.subscription.live_at if group is None else group.position

    @property
    def read_from(self) -> ReadFrom:
        """See `Subscription.read_from`."""
        return self.live_at or self.subscription.read_from

    @property
    def cursor_part(self) -> str:
        """The part of a cursor for this audience, "" while there is no position."""
        group = self.group
        if group is not None:
            return group.cursor_part
        position = self.subscription.read_from
        return part_of(self.log, position) if isinstance(position, Position) else ""

    @property
    def is_counted(self) -> bool:
        """
        Whether the client counts its entries.

        It does not count those of a topic that it has asked for itself, although they
        are unread if the player is a member as well.
        """
        topics = self.owner.topics
        return self.is_member and not (topics and self.log.topic in topics)

    @property
    def grouped_unread(self) -> int:
        """Entries the group has delivered to this member that count as unread."""
        group = self.group
        return (
            group.delivered_count - self._delivered_before
            if group is not None and self.is_counted
            else 0
        )

    def join_group(self, group: Group) -> None:
        """Let a group keep the position from now on."""
        self.group = group
        self._delivered_before = group.delivered_count

    def leave_group(self) -> None:
        """Become individual, with the state the group has kept. Idempotent."""
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
            # A stream that joins is congested because it waits for the first reads
            # of its logs. Such a read must not wait for the stream in turn.
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
            # The stream has not begun. A later read returns this entry.
            self.own_subscription().mark_stale()
            return
        delivery = self.own_subscription().on_live(entry)
        if delivery.entries:
            self.owner.on_audience(self, delivery)

    def on_history(
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        subscription = self.own_subscription()
        if subscription.state is State.LIVE or read_from != subscription.read_from:
            return
        stream = self.owner.stream
        if stream is not None:
            history = stream.trim_to_buffer(history)
        delivery = subscription.on_history(read_from, history)
        entries = [
            entry for entry in delivery.entries if is_after(self.joined_at, entry)
        ]
        begins = self.began_at is None
        if begins:
            # If a gap follows, `hello` names the client's old position. A client that
            # loses its connection between the two would never learn of the gap
            # otherwise.
            self.began_at = history.start
            if history.gap is not None and isinstance(read_from, Position):
                self.began_at = read_from
        if begins or entries or delivery.gap:
            self.owner.on_audience(self, delivery._replace(entries=entries))

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.owner.end(disconnect, delay_ms=delay_ms)

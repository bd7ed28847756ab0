"""
The readers of one audience's log, and how one entry reaches them all.

Decides which readers share a write. Knows their subscriptions, and by small protocols
the readers and the sinks. Knows nothing of sockets, Redis, tasks or clocks.

An audience's event is the same bytes for every reader. The readers that are live at the
head of the log and are written to in the same way are *grouped*: an entry costs each of
them one write and nothing else. Their position, how many entries they got, and whether
their cursors are due are equal, so the group keeps these once for all of them.

A reader that needs individual treatment, because it ends, becomes stale or gets an
entry that is not for every reader, leaves the group first and takes that state along.
After the next entry that it takes at the head it may be grouped again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any, Final

from ...model import Entry, Log, Position
from .audience_subscription import AudienceSubscription
from .batch_writer import DeliveryProfile
from .cursor import part_of
from .subscription import follows_directly

__all__ = ["CURSOR_INTERVAL_S", "BroadcastGroup"]

CURSOR_INTERVAL_S: Final = 15.0
"""
How often the grouped readers are sent their cursors, at most.

In a busy audience a cursor every second would cost as much as the entries themselves. A
client that loses its connection in between loses nothing: it gets the last few entries
again.
"""

HEAD_SAMPLE_MAX: Final = 8
"""How many individual readers are examined to find the head of the log."""


class BroadcastGroup:
    """
    The subscriptions to one audience's log.

    Args:
        log: The audience's log.

    """

    __slots__ = (
        "_cursor_part",
        "_grouped",
        "_log",
        "_updates_taken_at_s",
        "cursor_dirty",
        "delivered_count",
        "individual",
        "position",
    )

    def __init__(self, log: Log) -> None:
        self._log = log
        self.individual: dict[AudienceSubscription, None] = {}
        """Subscriptions that are not grouped, in the order in which they came."""
        self._grouped: dict[DeliveryProfile, dict[AudienceSubscription, Any]] = {}
        """The grouped subscriptions, with their sinks, by delivery profile."""
        self.position: Position | None = None
        """The position of all grouped subscriptions."""
        self.delivered_count = 0
        """How many entries the group has delivered so far."""
        self.cursor_dirty = False
        """Whether it has delivered any since `take_due_cursor_updates` said so."""
        self._updates_taken_at_s = -CURSOR_INTERVAL_S
        self._cursor_part: tuple[Position | None, str] = None, ""
        """The last value of `cursor_part`, and the position it belongs to."""

    def __len__(self) -> int:
        return len(self.individual) + sum(map(len, self._grouped.values()))

    def __iter__(self) -> Iterator[AudienceSubscription]:
        yield from tuple(self.individual)
        yield from self._grouped_subscriptions()

    def add(self, sub: AudienceSubscription) -> None:
        """Add a subscription as an individual one."""
        self.individual[sub] = None

    def remove(self, sub: AudienceSubscription) -> None:
        """Remove a subscription, grouped or individual."""
        sub.leave_group()
        del self.individual[sub]

    @property
    def head(self) -> Position | None:
        """The head of the log, None if no live reader is found that knows it."""
        if self._grouped:
            return self.position
        positions = (sub.live_at for sub in islice(self.individual, HEAD_SAMPLE_MAX))
        return next((position for position in positions if position is not None), None)

    @property
    def cursor_part(self) -> str:
        """The part of the grouped readers' cursors for this audience."""
        position = self.position
        if self._cursor_part[0] is not position:
            part = "" if position is None else part_of(self._log, position)
            self._cursor_part = position, part
        return self._cursor_part[1]

    def positions(self) -> set[Position | None]:
        """Return the positions of all live readers, and None if any is not live."""
        positions = {sub.live_at for sub in self.individual}
        return positions | {self.position} if self._grouped else positions

    def try_group(self, sub: AudienceSubscription, position: Position) -> None:
        """Group a subscription that has taken the entry at the head, if possible."""
        stream = sub.owner.stream
        if sub.is_member is not sub.is_counted:
            return  # Each of its entries makes the client's count wrong.
        profile_and_sink = None if stream is None else stream.delivery_profile()
        if profile_and_sink is None:
            return
        profile, sink = profile_and_sink
        self.position = position
        del self.individual[sub]
        self._grouped.setdefault(profile, {})[sub] = sink
        sub.join_group(self)

    def ungroup(self, sub: AudienceSubscription) -> None:
        """Make a subscription individual. To be called by its `leave_group` only."""
        for profile, subs in self._grouped.items():
            if subs.pop(sub, None) is not None:
                if not subs:
                    del self._grouped[profile]
                break
        self.individual[sub] = None
        if not self._grouped:
            # Every subscription has taken along that its cursor is due. The next one
            # that is grouped must not be sent one for that reason.
            self.cursor_dirty = False

    def ungroup_all(self) -> None:
        """Make all subscriptions individual."""
        for sub in self._grouped_subscriptions():
            sub.leave_group()

    def deliver(self, entry: Entry, position: Position) -> bool:
        """
        Deliver an entry to the grouped readers; return whether there were any.

        If the entry does not directly follow, or is not the same for every reader, all
        readers become individual instead, and the caller offers it to each.
        """
        if not self._grouped or self.position is None:
            return False
        if not entry.is_for_all or not follows_directly(entry, self.position):
            self.ungroup_all()
            return False
        self.position = position
        self.delivered_count += 1
        self.cursor_dirty = True
        for profile, subs in tuple(self._grouped.items()):
            self._write(profile, subs, profile.codec.entry(entry, None))
        return True

    def broadcast_ephemeral(self, notification: bytes) -> None:
        """Send every reader a notification, JSON, that is in no log."""
        for sub in tuple(self.individual):
            if (stream := sub.owner.stream) is not None:
                stream.send_ephemeral(notification)
        for profile, subs in tuple(self._grouped.items()):
            self._write(profile, subs, profile.codec.ephemeral(notification))

    def take_due_cursor_updates(self, now_s: float) -> Collection[AudienceSubscription]:
        """Return the grouped subscriptions if their cursors are due at `now_s`."""
        if (
            not self.cursor_dirty
            or now_s - self._updates_taken_at_s < CURSOR_INTERVAL_S
        ):
            return ()
        self.cursor_dirty = False
        self._updates_taken_at_s = now_s
        return self._grouped_subscriptions()

    def _write(
        self,
        profile: DeliveryProfile,
        subs: dict[AudienceSubscription, Any],
        event: bytes,
    ) -> None:
        profile.transport.deliveries += len(subs)
        # A set: when a network fails, very many sinks are full at the same time.
        full = set(
            profile.batch_writer.write_all(
                subs.values(), event, profile.buffer_bytes_max
            )
        )
        if full:
            for sub in [sub for sub, sink in subs.items() if sink in full]:
                if (stream := sub.owner.stream) is not None:
                    stream.drop_slow()

    def _grouped_subscriptions(self) -> list[AudienceSubscription]:
        return [sub for subs in self._grouped.values() for sub in subs]

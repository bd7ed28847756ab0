"""
Readers of one audience's log that share a position and a write.

Decides how one entry reaches a few hundred readers that are in the same state. Knows
their subscriptions, and by small protocols the readers and the sinks. Knows nothing of
sockets, Redis, tasks or clocks.

An audience's event is the same bytes for every reader. The readers that are live at the
head of the log and are written to in the same way are *grouped*: an entry costs each of
them one write and nothing else. Their position, how many entries they got, and whether
their cursors are due are equal, so the group keeps these once for all of them. A large
audience has many groups, which get an entry one after the other, in several turns of
the event loop (`core.streams.audience_followers`): each group is before the entry or
after it, never in the middle.

A reader that needs individual treatment, because it ends, becomes stale or gets an
entry that is not for every reader, leaves the group first and takes that state along.
After the next entry that it takes at the head it may be grouped again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...model import Entry, Log, Position
from .audience_subscription import AudienceSubscription
from .batch_writer import DeliveryProfile
from .cursor import part_of
from .subscription import follows_directly

__all__ = ["GROUP_MAX", "BroadcastGroup"]

GROUP_MAX: Final = 80
"""
Readers in a group: they are written to without a pause, in about one ms.

What of a turn announcements may take is left beside them (`core.portions.RESERVED`).
Otherwise a turn with an announcement would have no room for a group.
"""


class BroadcastGroup:
    """
    Grouped subscriptions to one audience's log.

    Args:
        log: The audience's log.
        profile: How its readers are written to.
        position: The position of its readers.
        on_left: Called with the group and a subscription that has left it.

    """

    __slots__ = (
        "_cursor_part",
        "_log",
        "_on_left",
        "cursor_dirty",
        "delivered_count",
        "members",
        "position",
        "profile",
    )

    def __init__(
        self,
        log: Log,
        profile: DeliveryProfile,
        position: Position,
        on_left: Callable[[BroadcastGroup, AudienceSubscription], None],
    ) -> None:
        self._log = log
        self._on_left = on_left
        self.profile = profile
        self.members: dict[AudienceSubscription, Any] = {}
        """The subscriptions, with their sinks."""
        self.position = position
        """The position of all of them."""
        self.delivered_count = 0
        """How many entries the group has delivered so far."""
        self.cursor_dirty = False
        """Whether it has delivered any since its readers were sent their cursors."""
        self._cursor_part: tuple[Position | None, str] = None, ""
        """The last value of `cursor_part`, and the position it belongs to."""

    def __len__(self) -> int:
        return len(self.members)

    @property
    def cursor_part(self) -> str:
        """The part of the grouped readers' cursors for this audience."""
        position = self.position
        if self._cursor_part[0] is not position:
            self._cursor_part = position, part_of(self._log, position)
        return self._cursor_part[1]

    def add(self, sub: AudienceSubscription, sink: Any) -> None:
        """Add a subscription that is at the group's position."""
        self.members[sub] = sink
        sub.join_group(self)

    def ungroup(self, sub: AudienceSubscription) -> None:
        """Make a subscription individual. To be called by its `leave_group` only."""
        del self.members[sub]
        self._on_left(self, sub)

    def ungroup_all(self) -> None:
        """Make all subscriptions individual."""
        for sub in tuple(self.members):
            sub.leave_group()

    def deliver(self, entry: Entry, position: Position) -> bool:
        """
        Deliver an entry to all; return False if each has to be offered it instead.

        That is so if the entry does not directly follow, or is not the same for every
        reader.
        """
        if not entry.is_for_all or not follows_directly(entry, self.position):
            return False
        full = self._write(self.profile.codec.entry(entry, None))
        self.position = position
        self.delivered_count += 1
        self.cursor_dirty = True
        self._drop(full)
        return True

    def broadcast_ephemeral(self, notification: bytes) -> None:
        """Send every reader a notification, JSON, that is in no log."""
        self._drop(self._write(self.profile.codec.ephemeral(notification)))

    def _write(self, event: bytes) -> list[Any]:
        """Write an event to all sinks; return those without room."""
        profile, members = self.profile, self.members
        profile.transport.deliveries += len(members)
        return profile.batch_writer.write_all(
            members.values(), event, profile.buffer_bytes_max
        )

    def _drop(self, full: list[Any]) -> None:
        """End the streams whose sinks have no room."""
        # A set: when a network fails, very many sinks are full at the same time.
        sinks = set(full)
        if sinks:
            for sub in [sub for sub, sink in self.members.items() if sink in sinks]:
                if (stream := sub.owner.stream) is not None:
                    stream.drop_slow()

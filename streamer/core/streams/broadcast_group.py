"""
Everybody in an audience's log, and how one entry reaches them all.

Decides who of them is written to in one go. Knows strands, and by small protocols whose
they are and where bytes go. Knows nothing of sockets, Redis, tasks or clocks.

An audience's event is the same bytes for everybody. Those who are live, have all there
is and are written to in the same manner are *level*: an entry costs each of them one
write, and nothing else. What else there is to note of each, where it stands and how
much it was given, is the same for all of them, so it is noted once, here. Who has to be
treated by itself, because it ends, doubts its feed or hears something that is not for
everybody, *parts* first and takes along what was noted; with the next entry that it
takes it may be level again.
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
How long after it was told where it is a reader is left alone, if it is one of many.

Where much is said, being told every second would cost as much as what is said. What it
loses who is cut off meanwhile is nothing: it is sent a little of it once more.
"""

HEAD_SAMPLE_MAX: Final = 8
"""How many of those who are by themselves are asked where the log stands."""


class BroadcastGroup:
    """
    The strands of one audience's log.

    Args:
        log: It.

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
        """Those who are not level, in the order in which they came or parted."""
        self._grouped: dict[DeliveryProfile, dict[AudienceSubscription, Any]] = {}
        """The others, with their sinks, by the manner in which they are written to."""
        self.position: Position | None = None
        """Where those are who are level."""
        self.delivered_count = 0
        """How many entries there have been for whoever was level."""
        self.cursor_dirty = False
        """Whether it was any since `tell` said so."""
        self._updates_taken_at_s = -CURSOR_INTERVAL_S
        self._cursor_part: tuple[Position | None, str] = None, ""
        """Where `cursor_part` was asked for last, and what it is there."""

    def __len__(self) -> int:
        return len(self.individual) + sum(map(len, self._grouped.values()))

    def __iter__(self) -> Iterator[AudienceSubscription]:
        yield from tuple(self.individual)
        yield from self._grouped_subscriptions()

    def add(self, sub: AudienceSubscription) -> None:
        self.individual[sub] = None

    def remove(self, sub: AudienceSubscription) -> None:
        sub.leave_group()
        del self.individual[sub]

    @property
    def head(self) -> Position | None:
        """Where the log stands, if somebody who is live in it knows."""
        if self._grouped:
            return self.position
        positions = (sub.live_at for sub in islice(self.individual, HEAD_SAMPLE_MAX))
        return next((position for position in positions if position is not None), None)

    @property
    def cursor_part(self) -> str:
        """What says in a cursor where those are who are level."""
        position = self.position
        if self._cursor_part[0] is not position:
            self._cursor_part = (
                position,
                ("" if position is None else part_of(self._log, position)),
            )
        return self._cursor_part[1]

    def positions(self) -> set[Position | None]:
        """Return all places at which somebody is live; None for those who are not."""
        positions = {sub.live_at for sub in self.individual}
        return positions | {self.position} if self._grouped else positions

    def try_group(self, sub: AudienceSubscription, position: Position) -> None:
        """Let a strand that has taken the entry at the head be level, if it can be."""
        stream = sub.owner.stream
        profile_and_sink = None if stream is None else stream.delivery_profile()
        if profile_and_sink is None:
            return
        profile, sink = profile_and_sink
        self.position = position
        del self.individual[sub]
        self._grouped.setdefault(profile, {})[sub] = sink
        sub.join_group(self)

    def ungroup(self, sub: AudienceSubscription) -> None:
        """Note that a strand is by itself; `AudienceSubscription.part` calls it."""
        for profile, subs in self._grouped.items():
            if subs.pop(sub, None) is not None:
                if not subs:
                    del self._grouped[profile]
                break
        self.individual[sub] = None
        if not self._grouped:
            # Each has taken along that its cursor is due: whoever is grouped next is
            # not owed one.
            self.cursor_dirty = False

    def ungroup_all(self) -> None:
        for sub in self._grouped_subscriptions():
            sub.leave_group()

    def deliver(self, entry: Entry, position: Position) -> bool:
        """
        Give an entry to all who are level; return whether there was somebody.

        Where they may not take it without further ado they part, and take it each by
        itself.
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
            self._write(
                profile,
                subs,
                profile.codec.entry(entry, None),
            )
        return True

    def broadcast_ephemeral(self, notification: bytes) -> None:
        """Give everybody a notification, JSON, that is in no log."""
        for sub in tuple(self.individual):
            if (stream := sub.owner.stream) is not None:
                stream.send_ephemeral(notification)
        for profile, subs in tuple(self._grouped.items()):
            self._write(
                profile,
                subs,
                profile.codec.ephemeral(notification),
            )

    def take_due_cursor_updates(self, now_s: float) -> Collection[AudienceSubscription]:
        """Return those who are level if they have moved and are to be told so now."""
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
        # A set: when a network fails, a great many have no room at the same time.
        full = set(
            profile.batch_writer.write_all(
                subs.values(),
                event,
                profile.buffer_bytes_max,
            )
        )
        if full:
            for sub in [sub for sub, sink in subs.items() if sink in full]:
                if (stream := sub.owner.stream) is not None:
                    stream.drop_slow()

    def _grouped_subscriptions(self) -> list[AudienceSubscription]:
        return [sub for subs in self._grouped.values() for sub in subs]

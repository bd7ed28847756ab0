"""
The followers of one audience's log, and how an event reaches all of them in portions.

Decides which subscriptions share a group, and in which order the followers are visited.
Knows groups and subscriptions. Knows nothing of sockets, Redis, tasks or clocks.

An event for ten thousand readers is too much for one turn of the event loop. So every
event is a *pass* over the followers, in steps (`core.portions`), with other work in
between. A pass visits every follower that is there when the pass begins and when its
turn has come, exactly once, and the passes over one log follow each other. What happens
in between stays exact:

* A reader that leaves a group whose turn has not come is visited as an individual one.
* A reader that comes is visited, too: its position may be that of readers whose turn
  has not come. For an entry that it has, the visit changes nothing.
* A reader that goes is not visited any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Final

from ...model import Entry, Log, Position
from ..portions import Steps
from .audience_subscription import AudienceSubscription
from .batch_writer import DeliveryProfile
from .broadcast_group import GROUP_MAX, BroadcastGroup
from .views import is_after

__all__ = [
    "CURSOR_INTERVAL_S",
    "INDIVIDUAL_COST",
    "AudienceFollowers",
    "individuals_max",
]

CURSOR_INTERVAL_S: Final = 15.0
"""
How often the grouped readers are sent their cursors, at most.

In a busy audience a cursor every second would cost as much as the entries themselves. A
client that loses its connection in between loses nothing: it gets the last few entries
again.
"""

HEAD_SAMPLE_MAX: Final = 8
"""How many individual readers are examined to find the head of the log."""

INDIVIDUAL_COST: Final = 3
"""A visit of an individual reader takes so many times that of a grouped one."""

NOTE_COST: Final = 4
"""One visit without a write takes a part of one with a write: one in so many."""


def individuals_max(group_max: int) -> int:
    """Return how many individual readers cost as much as a group."""
    return max(1, group_max // INDIVIDUAL_COST)


class AudienceFollowers:
    """
    The subscriptions to one audience's log.

    Args:
        log: The audience's log.
        group_max: Readers in a group.

    """

    __slots__ = (
        "_groups",
        "_late",
        "_updates_taken_at_s",
        "_waiting",
        "group_max",
        "individual",
        "log",
        "position",
    )

    def __init__(self, log: Log, *, group_max: int = GROUP_MAX) -> None:
        self.log = log
        self.group_max = group_max
        self.individual: dict[AudienceSubscription, None] = {}
        """Subscriptions that are not grouped, in the order in which they came."""
        self._groups: dict[DeliveryProfile, list[BroadcastGroup]] = {}
        """By profile. No group is empty."""
        self.position: Position | None = None
        """The newest position of any group, as of the last entry that was grouped."""
        self._waiting: dict[BroadcastGroup, None] = {}
        """The groups whose turn in the current pass has not come."""
        self._late: list[AudienceSubscription] | None = None
        """Individual subscriptions to be visited by the current pass, None: no pass."""
        self._updates_taken_at_s = -CURSOR_INTERVAL_S

    def __bool__(self) -> bool:
        return bool(self.individual or self._groups)

    def __len__(self) -> int:
        return len(self.individual) + sum(map(len, self.groups()))

    def __iter__(self) -> Iterator[AudienceSubscription]:
        yield from tuple(self.individual)
        for group in self.groups():
            yield from tuple(group.members)

    def groups(self) -> list[BroadcastGroup]:
        """Return the groups, each with at least one subscription."""
        return [group for groups in self._groups.values() for group in groups]

    def add(self, sub: AudienceSubscription) -> None:
        """Add a subscription as an individual one."""
        self.individual[sub] = None
        if self._late is not None:
            self._late.append(sub)

    def remove(self, sub: AudienceSubscription) -> None:
        """Remove a subscription, grouped or individual."""
        sub.leave_group()
        del self.individual[sub]

    @property
    def head(self) -> Position | None:
        """The head of the log, None if no live reader is found that knows it."""
        if self._groups:
            return self.position
        for sub in islice(self.individual, HEAD_SAMPLE_MAX):
            position = sub.live_at
            if position is not None:
                return position
        return None

    def positions(self) -> set[Position | None]:
        """Return the positions of all live readers, and None if any is not live."""
        # `AudienceSubscription.live_at` without its call, for ten thousand at once.
        positions = {sub.subscription.live_at for sub in self.individual}
        return positions | {group.position for group in self.groups()}

    def take_due_cursor_updates(self, now_s: float) -> Collection[AudienceSubscription]:
        """Return the grouped subscriptions whose cursors are due at `now_s`."""
        if now_s - self._updates_taken_at_s < CURSOR_INTERVAL_S:
            return ()
        dirty = [group for group in self.groups() if group.cursor_dirty]
        if dirty:
            self._updates_taken_at_s = now_s
        for group in dirty:
            group.cursor_dirty = False
        return [sub for group in dirty for sub in group.members]

    # Passes. No other one of the same log may begin before one has ended.

    def deliver(
        self,
        entry: Entry,
        position: Position,
        offer: Callable[[list[AudienceSubscription]], object],
    ) -> Steps:
        """
        Deliver an entry, in steps.

        `position` is the entry's. `offer` offers the entry to individual subscriptions.
        Those that it brings to the same object are grouped. If any group has taken the
        entry, that is the value of `position` afterwards.
        """

        def to_group(group: BroadcastGroup) -> None:
            if group.deliver(entry, position):
                self.position = position
            else:
                assert self._late is not None
                self._late.extend(group.members)
                group.ungroup_all()

        def to_individuals(subs: list[AudienceSubscription]) -> None:
            offer(subs)
            for sub in subs:
                if (
                    sub.live_at is position
                    and sub.group is None
                    and sub in self.individual
                    and is_after(sub.joined_at, entry)
                ):
                    self._try_group(sub, position)

        return self._visit(to_group, to_individuals)

    def broadcast_ephemeral(self, notification: bytes) -> Steps:
        """Send every reader a notification, JSON, that is in no log, in steps."""

        def to_individuals(subs: list[AudienceSubscription]) -> None:
            for sub in subs:
                if (stream := sub.owner.stream) is not None:
                    stream.send_ephemeral(notification)

        def to_group(group: BroadcastGroup) -> None:
            group.broadcast_ephemeral(notification)

        return self._visit(to_group, to_individuals)

    def mark_stale(self, done: Callable[[], None]) -> Steps:
        """Have every subscription read the log, in steps; `done` follows each step."""

        def mark(subs: list[AudienceSubscription]) -> None:
            for sub in subs:
                sub.own_subscription().mark_stale()
            done()

        def to_group(group: BroadcastGroup) -> None:
            mark(list(group.members))

        return self._visit(to_group, mark)

    def note_ended(self) -> Steps:
        """Have the streams that count the log's entries take a count, in steps."""

        def note(subs: list[AudienceSubscription]) -> None:
            for sub in subs:
                if sub.is_member and (stream := sub.owner.stream) is not None:
                    stream.doubt_count()

        def to_group(group: BroadcastGroup) -> None:
            note(list(group.members))

        return self._visit(to_group, note, cost_of=lambda n: n // NOTE_COST + 1)

    def _visit(
        self,
        to_group: Callable[[BroadcastGroup], None],
        to_individuals: Callable[[list[AudienceSubscription]], None],
        *,
        cost_of: Callable[[int], int] = lambda n: n,
    ) -> Steps:
        """Visit every follower exactly once; see the head of this module."""
        self._waiting = dict.fromkeys(self.groups())
        self._late = late = list(self.individual)
        try:
            while self._waiting:
                group = next(iter(self._waiting))
                yield cost_of(len(group))
                if group in self._waiting:  # It has not lost its last reader since.
                    del self._waiting[group]
                    to_group(group)
            visited = 0
            while visited < len(late):  # It grows when others come.
                subs = late[visited : visited + individuals_max(self.group_max)]
                yield cost_of(INDIVIDUAL_COST * len(subs))
                visited += len(subs)
                to_individuals([sub for sub in subs if sub in self.individual])
        finally:
            self._waiting = {}
            self._late = None

    # Groups.

    def _try_group(self, sub: AudienceSubscription, position: Position) -> None:
        """Group a subscription that has taken the entry at the head, if possible."""
        stream = sub.owner.stream
        if sub.is_member is not sub.is_counted:
            return  # Each of its entries makes the client's count wrong.
        profile_and_sink = None if stream is None else stream.delivery_profile()
        if profile_and_sink is None:
            return
        profile, sink = profile_and_sink
        del self.individual[sub]
        self.position = position
        self._group_at(profile, position).add(sub, sink)

    def _group_at(self, profile: DeliveryProfile, position: Position) -> BroadcastGroup:
        """Return a group at a position that has room."""
        groups = self._groups.setdefault(profile, [])
        # The last one is the one that was made last, or filled last.
        for i in range(len(groups) - 1, -1, -1):
            if len(groups[i]) < self.group_max and groups[i].position == position:
                groups[i], groups[-1] = groups[-1], groups[i]
                return groups[-1]
        groups.append(BroadcastGroup(self.log, profile, position, self._on_left))
        return groups[-1]

    def _on_left(self, group: BroadcastGroup, sub: AudienceSubscription) -> None:
        self.individual[sub] = None
        if group in self._waiting:
            assert self._late is not None
            self._late.append(sub)
        if not group.members:
            self._waiting.pop(group, None)
            groups = self._groups[group.profile]
            groups.remove(group)
            if not groups:
                del self._groups[group.profile]

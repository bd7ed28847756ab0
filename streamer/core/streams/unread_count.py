"""
The number of unread notifications that a stream has told its client.

Decides what a count of the inbox means for a stream that has delivered less or more
than was counted. Knows numbers, positions and views. Knows nothing of how they are
read.

A client counts from the last number that it was sent: one more for each notification. A
number that is read from the store counts up to a position in each log (`InboxCount`).
The stream compares these positions with what it has delivered (`delivered_beyond`). If
an entry that was counted is still to come, the number would count it twice, and has to
wait. What was delivered beyond the position is added. So a number that is sent is never
older than the notifications before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ...model import Log, Position
from .views import Audience, View

__all__ = ["InboxCount", "UnreadCount", "delivered_beyond", "with_uncounted"]

UNCOUNTED_MAX: Final = 64
"""
Uncounted entries that are remembered per log. Each causes a count, which makes it
obsolete; 64 cover a log with hundreds of them in a second.
"""


class InboxCount(NamedTuple):
    """
    The unread entries of a player's inbox, and the positions that they count up to.

    `head` is the own log's, `own_unread` the number of its unread entries, and `marks`
    its version of read marks, all at one moment. `views` has the audiences that are not
    muted, and `audiences` their logs, read later than that moment. `own_unread_before`
    counts the own log's unread entries up to the position after which it was read.
    """

    head: Position
    own_unread: int
    marks: int
    views: Mapping[Log, View]
    audiences: Mapping[Log, Audience]
    own_unread_before: int = 0

    @property
    def unread(self) -> int:
        """The number of unread entries in all logs."""
        return self.own_unread + sum(
            view.unread(self.audiences[log]) for log, view in self.views.items()
        )

    def unread_in(self, audience: Log, position: Position) -> int:
        """Return how many entries of an audience up to a position are unread."""
        if audience not in self.views:
            return 0
        state = self.audiences[audience]
        # A position of a lost log separates nothing.
        is_known = position.is_zero or position.epoch in (0, state.head.epoch)
        last = position.offset if is_known else state.head.offset
        return self.views[audience].unread(state, last=last)


def with_uncounted(uncounted: tuple[int, ...], offset: int) -> tuple[int, ...]:
    """Return a log's uncounted offsets with one more, at most `UNCOUNTED_MAX`."""
    return (*uncounted[1 - UNCOUNTED_MAX :], offset)


def delivered_beyond(
    counted_to: Position,
    delivered_to: Position,
    uncounted: tuple[int, ...],
    joined: Position | None = None,
) -> int | None:
    """
    Return how many entries of a log were delivered beyond the position counted to.

    None if that is not known: an entry that was counted is still to come, or the log
    was lost in between.

    Args:
        counted_to: The head of the log when its entries were counted.
        delivered_to: The position of the last entry that was delivered.
        uncounted: Offsets of the last entries that count for nobody.
        joined: Only entries after this position are delivered.

    """
    if delivered_to.offset < counted_to.offset:
        return None
    if not counted_to.is_zero and counted_to.epoch != delivered_to.epoch:
        return None
    first = counted_to.offset
    if joined is not None and joined.epoch in (0, delivered_to.epoch):
        first = max(first, joined.offset)
    if len(uncounted) == UNCOUNTED_MAX and first < uncounted[0]:
        return None
    if delivered_to.offset <= first:
        return 0
    beyond = delivered_to.offset - first
    return beyond - sum(first < offset <= delivered_to.offset for offset in uncounted)


# One per connection, and without references: the garbage collector can ignore it.
class UnreadCount(msgspec.Struct, gc=False):
    """
    The unread notifications of one stream, as its client counts them.

    A stream that is in a group of readers does not count what the group delivers. So
    the number has two parts: `counted`, which is kept here, and `grouped`, which the
    caller passes in.
    """

    counted: int = 0
    is_doubtful: bool = False
    """Whether the client may count otherwise, so that it is sent the next number."""

    def set(self, unread: int, grouped: int) -> None:
        """Set the number to the one that the client is sent now."""
        self.counted = unread - grouped
        self.is_doubtful = False

"""
How a stream begins.

Decides the order of a stream's first events: ``hello``, the gaps, then the entries that
the client has missed. Knows the stream's subscriptions and their first deliveries.
Knows nothing of how events are written.

A stream has one subscription per log. It begins when each of them has had its first
read, because ``hello`` names a position in every log. Until then `Greeting` collects
the first deliveries; afterwards the stream has no use for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from ...model import Entry, Gap, Position, encode_position
from .audience_subscription import AudienceSubscription
from .codec import fitting
from .cursor import tail_of
from .subscription import Delivery
from .unread_count import InboxCount

__all__ = ["Beginning", "FirstEvents", "Greeting"]

Subscriber = AudienceSubscription | None
"""A reader in one log: None in the player's own."""


class Beginning(NamedTuple):
    """
    The first delivery of one log.

    `position` is where the client is in that log, before the delivery. With the own
    log's comes what was `counted` in the inbox.
    """

    sub: Subscriber
    position: Position
    delivery: Delivery
    counted: InboxCount | None = None


class FirstEvents(NamedTuple):
    """
    The events with which a stream begins, in their order.

    After ``hello`` with `cursor` come the gaps, each with the cursor after it, and the
    entries, in runs of one log. A run of the player's own log has the tail of its
    cursors; an audience's has None. `hello` and each gap have the number of unread
    entries up to their cursor. `postponed` has the logs of which entries found no room,
    and the positions to read them from. `counted` is the count of the inbox, None if it
    is not known.
    """

    cursor: str
    unread: int
    gaps: list[tuple[Subscriber, Gap, str, int]]
    runs: list[tuple[Subscriber, list[Entry], str | None]]
    postponed: dict[Subscriber, Position]
    counted: InboxCount | None


class Greeting:
    """The first deliveries of a stream's logs, while the stream joins."""

    __slots__ = ("_beginnings",)

    def __init__(self) -> None:
        self._beginnings: list[Beginning] = []

    def has(self, sub: Subscriber) -> bool:
        """Whether a log has had its first read."""
        for beginning in self._beginnings:
            if beginning.sub is sub:
                return True
        return False

    def add(self, beginning: Beginning) -> None:
        """Add the first delivery of a log."""
        self._beginnings.append(beginning)

    def keep(self, subs: Sequence[AudienceSubscription]) -> None:
        """Drop the deliveries of other audiences than these."""
        kept = (None, *subs)
        self._beginnings = [b for b in self._beginnings if b.sub in kept]

    def is_complete(self, subs: Sequence[AudienceSubscription]) -> bool:
        """Whether the player's own log and these audiences have all been read."""
        return len(self._beginnings) > len(subs)

    def first_events(
        self, subs: Sequence[AudienceSubscription], room_bytes: int
    ) -> FirstEvents:
        """
        Return the stream's first events; `is_complete` has to hold.

        The gaps come before all entries. The entries of several logs are merged by
        time, as far as the order within each log allows, and there are as many as fit
        into `room_bytes`, at least one.
        """
        # Where the client is, which is not where the subscriptions are until the end.
        positions = {begun.sub: begun.position for begun in self._beginnings}
        counted = next(begun.counted for begun in self._beginnings if begun.sub is None)
        cursor = _cursor_of(subs, positions)
        unread = _unread_at(subs, positions, counted)
        gaps = []
        for sub, _, delivery, _ in self._beginnings:
            if delivery.gap is not None and delivery.resumed_at is not None:
                positions[sub] = delivery.resumed_at
                unread_after = _unread_at(subs, positions, counted)
                gaps.append(
                    (sub, delivery.gap, _cursor_of(subs, positions), unread_after)
                )
        missed = self._missed()
        left = fitting(
            [entry for _, entries in missed for entry in entries], room_bytes
        )
        runs: list[tuple[Subscriber, list[Entry], str | None]] = []
        postponed = {}
        for sub, entries in missed:
            fit, left = entries[:left], max(0, left - len(entries))
            if fit:
                positions[sub] = fit[-1].position
                tail = _tail_of(subs, positions) if sub is None else None
                runs.append((sub, fit, tail))
            if len(fit) < len(entries):
                postponed[sub] = positions[sub]
        return FirstEvents(cursor, unread, gaps, runs, postponed, counted)

    def _missed(self) -> list[tuple[Subscriber, list[Entry]]]:
        """Return the entries of all logs, merged by time, in runs of one log."""
        logs = [b for b in self._beginnings if b.delivery.entries]
        if len(logs) == 1:
            return [(logs[0].sub, logs[0].delivery.entries)]
        missed = [(b.sub, entry) for b in logs for entry in b.delivery.entries]
        missed.sort(key=lambda pair: pair[1].order)
        return [
            (sub, [entry for _, entry in run])
            for sub, run in groupby(missed, key=itemgetter(0))
        ]


def _cursor_of(
    subs: Sequence[AudienceSubscription], positions: Mapping[Subscriber, Position]
) -> str:
    return encode_position(positions[None]) + _tail_of(subs, positions)


def _unread_at(
    subs: Sequence[AudienceSubscription],
    positions: Mapping[Subscriber, Position],
    count: InboxCount | None,
) -> int:
    """Return the number of unread entries up to a position in each log."""
    if count is None:
        return 0
    own = positions[None]
    is_head = own.order == count.head.order
    unread = count.own_unread if is_head else count.own_unread_before
    return unread + sum(
        count.unread_in(sub.log, positions[sub]) for sub in subs if sub.is_member
    )


def _tail_of(
    subs: Sequence[AudienceSubscription], positions: Mapping[Subscriber, Position]
) -> str:
    return tail_of([(sub.log, positions[sub]) for sub in subs])

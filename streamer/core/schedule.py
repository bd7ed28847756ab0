"""
Scheduled sends: what one is, and the rules it keeps.

Decides how far ahead a send may lie, when it counts as late, when each part of a spread
audience begins, and whether clocks agree well enough to fire at all. Knows times as
numbers. Knows nothing of the store.

A schedule goes through these states, and never back::

    pending ------> sent                  one player: one step
       |  |
       |  +-------> sending ----> sent    an audience: from `sending` on it is sent
       |
       +----------> cancelled

"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from ..model import App, Player

__all__ = [
    "AHEAD_MAX_MS",
    "LATE_AFTER_MS",
    "Schedule",
    "State",
    "begins_ms",
    "clocks_agree",
]

AHEAD_MAX_MS: Final = 30 * 86_400_000
"""Teak and WalletWerk: at most 30 days ahead."""

LATE_AFTER_MS: Final = 5_000
"""A send this long past its time says so: the schedule was kept, the time was not."""

CLOCKS_APART_MAX_MS: Final = 30_000


class State(enum.Enum):
    """Where a schedule is on its way."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    CANCELLED = "cancelled"


class Schedule(NamedTuple):
    """
    One scheduled send.

    It is for one `player`; or for the active cards of a `campaign`, taken when it is
    sent; or, where both are empty, for a list of players that the store keeps apart.
    `total` is how many recipients it has, 0 while a campaign's are not known;
    `delivered` how many of them are served. Times are ms of the store's clock;
    `settled_ms` is when it was sent or cancelled, 0 before.
    """

    app: App
    id: str
    state: State
    due_ms: int
    created_ms: int
    fragment: bytes
    player: Player | None = None
    campaign: str = ""
    buckets: tuple[int, ...] = ()
    total: int = 0
    delivered: int = 0
    spread_ms: int = 0
    begun_ms: int = 0
    settled_ms: int = 0
    source: str = ""
    label: str = ""

    @property
    def is_late(self) -> bool:
        """Whether it went out late."""
        sent_ms = self.begun_ms or self.settled_ms
        sent = self.state in (State.SENDING, State.SENT)
        return sent and sent_ms - self.due_ms > LATE_AFTER_MS


def begins_ms(schedule: Schedule, nth: int) -> int:
    """Return when the `nth` of a schedule's buckets may begin to be served."""
    assert schedule.buckets
    return schedule.begun_ms + schedule.spread_ms * nth // len(schedule.buckets)


def clocks_agree(store_ms: int, node_ms: int) -> bool:
    """
    Whether the store's clock can be trusted to fire by.

    Nothing but the store's clock says what is due, so a store whose clock jumped would
    send a month of schedules at once. A node cannot tell which of the two is wrong, and
    has no need to: it waits until they agree.
    """
    return abs(store_ms - node_ms) <= CLOCKS_APART_MAX_MS

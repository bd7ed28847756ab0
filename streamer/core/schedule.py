"""
Scheduled sends: what one is, and the rules it keeps.

Decides how far ahead a send may lie, when it counts as late, whose turn it is, when
each part of a spread audience begins, and whether clocks agree well enough to fire at
all. Knows times as numbers. Knows nothing of the store.

A schedule goes through these states, and never back::

    pending ------> sent                  one player: one step
       |  |
       |  +-------> sending ----> sent    an audience: from `sending` on it is sent
       |
       +----------> cancelled

"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from ..model import App

__all__ = [
    "AHEAD_MAX_MS",
    "LATE_AFTER_MS",
    "Schedule",
    "ScheduleState",
    "bucket_starts_ms",
    "clocks_agree",
    "parse_time",
    "round_robin",
    "to_ms",
]

T = TypeVar("T")

AHEAD_MAX_MS: Final = 30 * 86_400_000
"""Teak and WalletWerk: at most 30 days ahead."""

LATE_AFTER_MS: Final = 5_000
"""A send this long past its time says so: the schedule was kept, the time was not."""

CLOCK_SKEW_MAX_MS: Final = 30_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(
    r"""(?P<day> \d{4}-\d\d-\d\d ) [Tt ]
        (?P<clock> \d\d:\d\d ) ((?P<seconds> :\d\d ) ([.,] (?P<fraction> \d{1,9} ))? )?
        \ ? ([Zz] | UTC | (?P<offset> [+-]\d\d ) (:? (?P<minutes> \d\d ))? )?""",
    re.ASCII | re.VERBOSE,
)


class ScheduleState(enum.Enum):
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
    `settled_ms` is when it was sent or cancelled, 0 before. With `to_latest` it is live
    only on the device that its player has used last.

    `type`, `expires_ms` (0: never) and `collapse_key` say what its fragment says. With
    `ttl_ms` it expires so long after it is due: moved, it expires later.
    """

    app: App
    id: str
    state: ScheduleState
    due_ms: int
    created_ms: int
    fragment: bytes
    player: str | None = None
    """Name of its player's log, or of an audience's."""
    campaign: str = ""
    buckets: tuple[int, ...] = ()
    total: int = 0
    delivered: int = 0
    spread_ms: int = 0
    begun_ms: int = 0
    settled_ms: int = 0
    source: str = ""
    label: str = ""
    to_latest: bool = False
    type: str = ""
    expires_ms: int = 0
    ttl_ms: int = 0
    collapse_key: str = ""

    @property
    def is_late(self) -> bool:
        """Whether it went out late."""
        sent_ms = self.begun_ms or self.settled_ms
        sent = self.state in (ScheduleState.SENDING, ScheduleState.SENT)
        return sent and sent_ms - self.due_ms > LATE_AFTER_MS


def bucket_starts_ms(schedule: Schedule, nth: int) -> int:
    """Return when the `nth` of a schedule's buckets may begin to be served."""
    assert schedule.buckets
    return schedule.begun_ms + schedule.spread_ms * nth // len(schedule.buckets)


def round_robin(items: Iterable[T], app: Callable[[T], App]) -> list[T]:
    """
    Return items so that each app has its turn, its own in the order given.

    The n-th of each app come before the next of any: one with a million of them is
    ahead of nobody by more than one.
    """
    nth: Counter[App] = Counter()
    ranked: list[tuple[int, T]] = []
    for item in items:
        app_name = app(item)
        ranked.append((nth[app_name], item))
        nth[app_name] += 1
    return [item for _, item in sorted(ranked, key=lambda ranks: ranks[0])]


def clocks_agree(store_ms: int, node_ms: int) -> bool:
    """
    Whether the store's clock can be trusted to fire by.

    Nothing but the store's clock says what is due, so a store whose clock jumped would
    send a month of schedules at once. A node cannot tell which of the two is wrong, and
    has no need to: it waits until they agree.
    """
    return abs(store_ms - node_ms) <= CLOCK_SKEW_MAX_MS


def parse_time(text: str) -> int | None:
    """
    Return an ISO 8601 date and time as ms of Unix time, or None if it is none.

    ``T`` or a blank may stand between the two; seconds may be left out, and have up to
    nine digits behind them. Without a zone it is UTC, which has no hour that does not
    exist. A leap second is not taken: no clock in here ever shows one.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    zone = f"{match['offset'] or '+00'}{match['minutes'] or '00'}"
    # What fromisoformat() reads differs between versions of Python; this they all do.
    clock = f"{match['clock']}{match['seconds'] or ':00'}"
    fraction = f"{match['fraction'] or '':0<6.6}"
    try:
        when = datetime.strptime(
            f"{match['day']} {clock}.{fraction} {zone}", "%Y-%m-%d %H:%M:%S.%f %z"
        )
    except ValueError:
        return None
    return to_ms(when)


def to_ms(when: datetime) -> int:
    """Return a time that has a zone as ms of Unix time, rounded down."""
    # Arithmetic rather than timestamp(): exact, and the same beyond 2038 everywhere.
    return (when - _EPOCH) // timedelta(milliseconds=1)

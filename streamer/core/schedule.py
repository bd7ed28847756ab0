"""
Scheduled sends and their rules.

Decides how far ahead a send may be, when it counts as late, in which order apps are
served, when each bucket of a spread audience starts, and whether clocks agree well
enough to fire. Knows times as numbers. Knows nothing of the store.

The states of a schedule::

    pending ------> sent                  one player: one step
       |  |
       |  +-------> sending ----> sent    an audience: `sending` cannot be cancelled
       |
       +----------> cancelled

    pending, sending <----> paused ----> cancelled

A paused schedule returns to the state it was paused in. If that is ``sending``, the
last recipients may be served in the moment of the pause, which makes it ``sent``.

"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from ..model import App
from .trace_context import TraceContext

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
"""A send that is later than this is marked as late."""

CLOCK_SKEW_MAX_MS: Final = 30_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = re.compile(
    r"""(?P<day> \d{4}-\d\d-\d\d ) [Tt ]
        (?P<clock> \d\d:\d\d ) ((?P<seconds> :\d\d ) ([.,] (?P<fraction> \d{1,9} ))? )?
        \ ? ([Zz] | UTC | (?P<offset> [+-]\d\d ) (:? (?P<minutes> [0-5]\d ))? )?""",
    re.ASCII | re.VERBOSE,
)


class ScheduleState(enum.Enum):
    """The state of a schedule."""

    PENDING = "pending"
    SENDING = "sending"
    PAUSED = "paused"
    SENT = "sent"
    CANCELLED = "cancelled"


class Schedule(NamedTuple):
    """
    One scheduled send.

    Its recipients are one `player`; or the players with active cards of a `campaign`,
    read when it is sent; or, if both are empty, a list of players that the store keeps
    separately. `total` is the number of recipients, 0 while those of a campaign are not
    known; `delivered` is how many of them were served. Times are ms of the store's
    clock; `settled_ms` is when it was sent or cancelled, 0 before. With `to_latest` it
    is delivered live only to the device that its player used last.

    `paused_ms` and `resumed_ms` are when it was paused and resumed last, 0 for never;
    `held_ms` is for how long it was paused after it had begun, in all.

    `type`, `expires_ms` (0: never) and `collapse_key` repeat members of its fragment.
    With `ttl_ms` it expires that long after it is due, also if it is moved.
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
    spelling: str = ""
    """Its player as the request spelled it, "" if by the player's name."""
    trace: TraceContext | None = None
    """The trace in which it was created, if that was sampled."""
    paused_ms: int = 0
    resumed_ms: int = 0
    held_ms: int = 0

    @property
    def is_late(self) -> bool:
        """Whether it was sent more than `LATE_AFTER_MS` after it was due."""
        sent_ms = self.begun_ms or self.settled_ms
        sent = self.begun_ms > 0 or self.state is ScheduleState.SENT
        return sent and sent_ms - self.due_ms > LATE_AFTER_MS

    @property
    def resumed_state(self) -> ScheduleState:
        """Its state, or if it is paused, that to which it returns."""
        if self.state is not ScheduleState.PAUSED:
            return self.state
        return ScheduleState.SENDING if self.begun_ms else ScheduleState.PENDING

    @property
    def fires_ms(self) -> int:
        """The earliest time at which it may be sent: due, and not paused."""
        return max(self.due_ms, self.resumed_ms)


def bucket_starts_ms(schedule: Schedule, nth: int) -> int:
    """Return when the `nth` of a schedule's buckets may be served."""
    assert schedule.buckets
    begun_ms = schedule.begun_ms + schedule.held_ms
    return begun_ms + schedule.spread_ms * nth // len(schedule.buckets)


def round_robin(items: Iterable[T], app: Callable[[T], App]) -> list[T]:
    """
    Return items in turns of apps; the items of one app keep their order.

    The n-th items of all apps come before any app's next one, so that an app with a
    million items delays no other app by more than one item.
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
    Whether the clocks of store and node agree well enough to fire schedules.

    The store's clock alone decides what is due, so a store whose clock jumped would
    send a month of schedules at once. A node cannot know which clock is wrong, and need
    not: it waits until they agree.
    """
    return abs(store_ms - node_ms) <= CLOCK_SKEW_MAX_MS


def parse_time(text: str) -> int | None:
    """
    Return an ISO 8601 date and time as ms of Unix time, or None if it is not one.

    The separator is ``T`` or a space. Seconds are optional and may have a fraction of
    up to nine digits. Without a zone the time is UTC, in which every hour exists. Leap
    seconds are rejected: no clock of this server ever shows one.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    zone = f"{match['offset'] or '+00'}:{match['minutes'] or '00'}"
    clock = f"{match['clock']}{match['seconds'] or ':00'}"
    fraction = f"{match['fraction'] or '':0<6.6}"
    try:
        # Other formats than this one are accepted by some versions of Python only.
        when = datetime.fromisoformat(f"{match['day']}T{clock}.{fraction}{zone}")
    except ValueError:
        return None
    return to_ms(when)


def to_ms(when: datetime) -> int:
    """Return a time with a zone as ms of Unix time, rounded down."""
    # Not timestamp(): this is exact, and works after 2038 on every platform.
    return (when - _EPOCH) // timedelta(milliseconds=1)

"""
Quotas of apps, and the permits that a node has borrowed from them.

Decides which limit applies if an app has none of its own, whether a node's balance
covers a request, how many permits it borrows, and for how long borrowing is pointless.
Knows numbers, and the time that its caller passes. Knows nothing of the store, nor of
what is published.

A quota per time is a token bucket in the store, one per app. It holds the burst and
fills evenly. Nodes borrow permits from the bucket in small portions and spend them
without asking the store. Every permit leaves the bucket before it is spent. So in the
long run all nodes together spend no more than the bucket fills with, and in any period
no more than that plus one burst plus the balances of the nodes.

A request that needs more permits than the bucket can hold is granted when the bucket is
full. The bucket then owes the rest: a batch of a thousand costs the same as a thousand
single publishes, only later.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec

__all__ = ["QUOTA_MAX", "Permits", "QuotaLimits", "QuotaOverrides"]

QUOTA_MAX: Final = 10**15
"""Well below 2^53, where Lua numbers stop being exact."""

BUCKET_STATE_TTL_S: Final = 1.0
"""How long a node trusts the last known state of a bucket. A flood of refused requests
costs one command per second, and a store that lost its data is noticed soon."""

_QuotaValue = Annotated[int, msgspec.Meta(ge=0, le=QUOTA_MAX)]


class QuotaLimits(NamedTuple):
    """
    The limits that apply to an app; 0 is no limit.

    Notifications per second, one for each inbox they go to; their bytes per day,
    counted in the same way; players with an inbox; schedules that are not due yet.
    """

    publishes_per_s: int = 0
    bytes_per_day: int = 0
    players: int = 0
    pending_schedules: int = 0


class QuotaOverrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits in an app's record; None where the node's settings apply."""

    publishes_per_s: _QuotaValue | None = None
    bytes_per_day: _QuotaValue | None = None
    players: _QuotaValue | None = None
    pending_schedules: _QuotaValue | None = None

    def with_defaults(self, defaults: QuotaLimits) -> QuotaLimits:
        """Return the limits that apply; `defaults` replace None."""
        return _limits(self, defaults)


# Called for each publish, and most apps have equal limits.
@lru_cache(maxsize=1024)
def _limits(quotas: QuotaOverrides, defaults: QuotaLimits) -> QuotaLimits:
    own = (getattr(quotas, name) for name in QuotaLimits._fields)
    return QuotaLimits(
        *(
            default if value is None else value
            for value, default in zip(own, defaults, strict=True)
        )
    )


class Permits:
    """
    The permits that a node has borrowed from one bucket, and the bucket's last state.

    Args:
        per_s: Permits with which the bucket fills per second.
        burst: Capacity of the bucket.
        portion: Permits to borrow at a time if no more are needed.

    """

    __slots__ = (
        "_balance",
        "_bucket_at_s",
        "_bucket_left",
        "burst",
        "per_s",
        "portion",
    )

    def __init__(self, per_s: float, burst: int, *, portion: int = 1) -> None:
        assert per_s > 0
        assert burst > 0
        self.per_s = per_s
        self.burst = burst
        self.portion = portion
        self._balance = 0
        self._bucket_left = float(burst)
        self._bucket_at_s = float("-inf")

    def spend(self, needed: int) -> bool:
        """Spend permits from the balance; return whether it covers them."""
        if needed > self._balance:
            return False
        self._balance -= needed
        return True

    def refund(self, unused: int) -> None:
        """Return unused permits to the balance, up to one burst."""
        self._balance = min(self._balance + unused, max(self._balance, self.burst))

    def wait_s(self, needed: int, now_s: float) -> float:
        """
        Return for how long the bucket cannot cover `needed`; 0 if it may cover it now.

        What was left in the bucket plus what it filled with since is an upper bound,
        because other nodes only take permits out.
        """
        if now_s - self._bucket_at_s >= BUCKET_STATE_TTL_S:
            return 0.0
        available = self._bucket_left + (now_s - self._bucket_at_s) * self.per_s
        missing = min(needed - self._balance, self.burst) - available
        return max(0.0, missing / self.per_s)

    def borrow_range(self, needed: int) -> tuple[int, int]:
        """Return how many permits must be borrowed, and how many should be."""
        needed_min = needed - self._balance
        assert needed_min > 0
        return needed_min, max(needed_min, self.portion)

    def add_borrowed(self, borrowed: int, left: float, now_s: float) -> None:
        """Add borrowed permits, which may be 0, and note what the bucket has left."""
        self._balance += borrowed
        self._bucket_left, self._bucket_at_s = left, now_s

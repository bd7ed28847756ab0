"""
Quotas: what an app may use, and how a node spends what it has borrowed of it.

Decides which limit counts where an app has none of its own, when a node may pay from
its own pocket, how much it asks the store for, and how long asking is in vain. Knows
numbers and the time it is given. Knows nothing of the store, nor of what is published.

What comes in at a rate is a bucket in the store, one per app: it holds what may be
spent at once, and fills evenly. Nodes borrow permits from it in small portions and
spend them without asking anybody. Every permit was taken out of the bucket first, so in
the long run no more is spent than it fills with, by however many nodes; and in any
stretch of time no more than that and one bucketful, beside the portions in the nodes'
pockets.

Who needs more than a bucketful gets it when the bucket is full, and it owes the rest:
a batch of a thousand is as good as a thousand alone, only later on.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec

__all__ = ["QUOTA_MAX", "Permits", "QuotaLimits", "QuotaOverrides"]

QUOTA_MAX: Final = 10**15
"""Far from where a Lua number is no longer exact, 2^53."""

BUCKET_STATE_TTL_S: Final = 1.0
"""How long a node believes what the store has said of a bucket. A flood of what is
refused costs one question a second; and a store that lost its data is soon noticed."""

_QuotaValue = Annotated[int, msgspec.Meta(ge=0, le=QUOTA_MAX)]


class QuotaLimits(NamedTuple):
    """
    What counts for an app; 0 is no limit.

    Notifications a second, one for each inbox they go to; bytes of them a day, counted
    in the same way; players with an inbox; schedules that are not due yet.
    """

    publishes_per_s: int = 0
    bytes_per_day: int = 0
    players: int = 0
    pending_schedules: int = 0


class QuotaOverrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What an app's record says of `QuotaLimits`; None where the node's settings count.
    """

    publishes_per_s: _QuotaValue | None = None
    bytes_per_day: _QuotaValue | None = None
    players: _QuotaValue | None = None
    pending_schedules: _QuotaValue | None = None

    def with_defaults(self, defaults: QuotaLimits) -> QuotaLimits:
        """Return what counts, where `defaults` do without a word here."""
        return _limits(self, defaults)


# Asked with each publish, and most apps have the same.
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
    What a node has borrowed of one bucket, and knows of it.

    Args:
        per_s: How fast the bucket fills.
        burst: What it holds.
        portion: What to borrow at a time, if no more is needed.

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
        """Spend what is needed from the pocket; return whether it was enough."""
        if needed > self._balance:
            return False
        self._balance -= needed
        return True

    def refund(self, unused: int) -> None:
        """Take back what was paid for nothing; more than a bucketful is forgotten."""
        self._balance = min(self._balance + unused, max(self._balance, self.burst))

    def wait_s(self, needed: int, now_s: float) -> float:
        """
        Return how long there is no use in asking the store; 0 if there may be.

        What was left in the bucket and what has come in since is the most that there
        can be: the other nodes only take out.
        """
        if now_s - self._bucket_at_s >= BUCKET_STATE_TTL_S:
            return 0.0
        available = self._bucket_left + (now_s - self._bucket_at_s) * self.per_s
        missing = min(needed - self._balance, self.burst) - available
        return max(0.0, missing / self.per_s)

    def borrow_range(self, needed: int) -> tuple[int, int]:
        """Return how many have to be borrowed for this, and how many would be good."""
        needed_min = needed - self._balance
        assert needed_min > 0
        return needed_min, max(needed_min, self.portion)

    def add_borrowed(self, borrowed: int, left: float, now_s: float) -> None:
        """Take what the store has lent, 0 too, and what it has left."""
        self._balance += borrowed
        self._bucket_left, self._bucket_at_s = left, now_s

"""
Quotas: what an app still may use, asked before anything is written for it.

Decides which limits count for an app at present, who is refused, and what is given back
of what was paid for nothing. Knows the use of quotas in the store, and the records of
apps. Knows nothing of what is published, nor of how a surface tells a refusal.

What comes in at a rate, notifications and their bytes, is paid from permits that this
node has borrowed; so most publishes ask nobody (`core.quotas`). Players and places of
schedules are asked for in the store, and only where an app has such a quota: what it
did before it had one is not counted.

A node believes its count of an app's players for a second. Below the quota everybody
may be sent something; at the quota, only who has an inbox already. So an app can come
to have as many players more as it is sent to, for the first time, within a second, and
the count itself is good to about two percent.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, NamedTuple

from ...core.access.apps import AppRecord
from ...core.quotas import Permits, QuotaLimits
from ...errors import OverQuota, Quota, Rejected, StoreUnavailable
from ...model import App, Player
from ...store.access.quotas import RETRY_WHEN_FULL_MS, QuotaUsage
from ...store.client.connection import RedisConnection

__all__ = ["APPS_MAX", "Charge", "ChargedBlock", "Quotas"]

APPS_MAX: Final = 10_000
"""Apps whose permits are kept; the oldest gives way, and its permits are lost."""

COUNT_TTL_S: Final = 1.0
"""How long the count of an app's players is believed."""

DAY_S: Final = 86_400

PORTIONS_PER_S: Final = 50
"""How often a node borrows at most, for an app that is at its rate. As many nodes as
this could have a second's worth in their pockets beside what the bucket allows."""

PORTIONS_PER_DAY: Final = 1_440
"""As little as a minute's worth is lost with a node that ends."""

FindApp = Callable[[App], Awaitable[AppRecord | None]]


class Charge:
    """What was paid for a request, and the places that it took."""

    def __init__(self, quotas: Quotas, app: App) -> None:
        self._quotas = quotas
        self._app = app
        self._payments: list[tuple[Permits, int]] = []
        self._slots: set[str] = set()

    def add_payment(self, permits: Permits, paid: int) -> None:
        """Note what was paid with."""
        self._payments.append((permits, paid))

    def add_slots(self, slots: Collection[str]) -> None:
        """Note which places were taken."""
        self._slots.update(slots)

    def refund(self, share: float = 1.0) -> None:
        """Give back so much of what was paid, once: nothing was stored for it."""
        for permits, paid in self._payments:
            permits.refund(round(paid * share))
        self._payments.clear()

    async def release_slots(self, ids: Collection[str]) -> None:
        """Give the places of these schedules back, if this request took them."""
        if slots := self._slots.intersection(ids):
            self._slots -= slots
            await self._quotas.free_schedule_slots(self._app, slots)

    async def refund_all(self) -> None:
        """Give everything back."""
        self.refund()
        await self.release_slots(tuple(self._slots))


class _Cost(NamedTuple):
    """What an app is to be charged for; see `Quotas.charged`."""

    app: App
    deliveries: int
    size: int
    players: Iterable[Player]
    slots: dict[str, int]


class ChargedBlock:
    """
    A block that an app is charged for; gives its `Charge`.

    No `contextlib.asynccontextmanager`, which was a twentieth of a publish.
    """

    __slots__ = ("_charge", "_cost", "_quotas")

    def __init__(self, quotas: Quotas, cost: _Cost) -> None:
        self._quotas = quotas
        self._cost = cost
        self._charge = Charge(quotas, cost.app)

    async def __aenter__(self) -> Charge:
        try:
            await self._quotas.charge(self._charge, self._cost)
        except (Rejected, StoreUnavailable):
            await self._refund_all()
            raise
        return self._charge

    async def __aexit__(
        self, error_type: type[BaseException] | None, *_: object
    ) -> None:
        if error_type is not None and issubclass(
            error_type, Rejected | StoreUnavailable
        ):
            await self._refund_all()

    async def _refund_all(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            # Places that stay taken are free when their schedules would be due.
            await self._charge.refund_all()


class _PlayerCount(NamedTuple):
    """How many players an app had at a time; if not `exact`, it has at most so many."""

    players: int
    at_s: float
    exact: bool = True


class Quotas:
    """
    The quotas of all apps, as one node keeps them.

    Args:
        find_app: Gives an app's record; what it gives may be some seconds old.
        used: What the store remembers.
        defaults: What counts for an app without quotas of its own.
        monotonic: Seconds by which what is known of the store's buckets ages.
        refusals: Counts what was refused, by quota.

    """

    def __init__(
        self,
        find_app: FindApp,
        used: QuotaUsage,
        defaults: QuotaLimits,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        refusals: Counter[str] | None = None,
    ) -> None:
        self._find_app = find_app
        self._used = used
        self._defaults = defaults
        self._monotonic = monotonic
        self._refusals = Counter() if refusals is None else refusals
        # In the order in which they came in, so the oldest is always the first.
        self._permits: dict[tuple[App, Quota], Permits] = {}
        self._borrowing: dict[tuple[App, Quota], asyncio.Lock] = {}
        self._counts: dict[App, _PlayerCount] = {}

    @classmethod
    def unlimited(cls, redis: RedisConnection) -> Quotas:
        """Return the quotas of a node where no app has any."""

        async def no_record(_: App) -> None:
            return None

        return cls(no_record, QuotaUsage(redis), QuotaLimits())

    async def limits(self, app: App) -> QuotaLimits:
        """Return what counts for an app. Raises StoreUnavailable."""
        record = await self._find_app(app)
        return record.quotas.with_defaults(self._defaults) if record else self._defaults

    def charged(
        self,
        app: App,
        *,
        deliveries: int,
        size: int,
        players: Iterable[Player] = (),
        slots: dict[str, int] | None = None,
    ) -> ChargedBlock:
        """
        Charge an app for what a block does.

        Where the block is refused, or the store is away, it has stored nothing, and
        everything is given back.

        Args:
            app: Whose it is.
            deliveries: Notifications, each as often as it is stored.
            size: Their bytes, counted in the same way.
            players: In whose inboxes they are stored; gone through if it matters.
            slots: When each schedule that is entered is due, by id.

        Entering it raises:
            OverQuota: A quota is used up; nothing was charged.
            StoreUnavailable: That cannot be told.

        """
        cost = _Cost(app, deliveries, size, players, slots or {})
        return ChargedBlock(self, cost)

    async def charge(self, charge: Charge, cost: _Cost) -> None:
        """Charge what is asked for; see `charged`. What was paid is noted."""
        app = cost.app
        limits = await self.limits(app)
        if not any(limits):
            return
        if limits.publishes_per_s:
            await self._charge_bucket(charge, app, _per_s(limits), cost.deliveries)
        if limits.bytes_per_day:
            await self._charge_bucket(charge, app, _per_day(limits), cost.size)
        if limits.players and (players := list(cost.players)):
            await self._charge_players(app, limits.players, players)
        if limits.pending_schedules and cost.slots:
            limit = limits.pending_schedules
            await self._take_schedule_slots(charge, app, limit, cost.slots)

    async def free_schedule_slots(self, app: App, ids: Collection[str]) -> None:
        """
        Give back the places of schedules that are cancelled.

        Where the store is away they stay taken until their schedules would be due.
        """
        with contextlib.suppress(StoreUnavailable):
            if ids and (await self.limits(app)).pending_schedules:
                await self._used.free_schedule_slots(app, tuple(ids))

    async def move_schedule_slot(self, app: App, schedule_id: str, due_ms: int) -> None:
        """Move a schedule's slot to another time; see `free_schedule_slots`."""
        with contextlib.suppress(StoreUnavailable):
            if (await self.limits(app)).pending_schedules:
                await self._used.move_schedule_slot(app, schedule_id, due_ms)

    async def _charge_bucket(
        self, charge: Charge, app: App, bucket: _Bucket, needed: int
    ) -> None:
        if not needed:
            return
        permits = self._permits_of(app, bucket)
        if not permits.spend(needed):
            # Before the queue: a flood of what is refused must not wait for itself.
            self._refuse(bucket, permits.wait_s(needed, self._monotonic()))
            lock = self._borrowing.setdefault((app, bucket.quota), asyncio.Lock())
            async with lock:
                await self._borrow(app, bucket, permits, needed)
        charge.add_payment(permits, needed)

    async def _borrow(
        self, app: App, bucket: _Bucket, permits: Permits, needed: int
    ) -> None:
        """Borrow what is missing and pay. What others borrowed meanwhile counts."""
        if permits.spend(needed):
            return
        # Older than the answer, so that waiting is never said to be in vain too long.
        now_s = self._monotonic()
        self._refuse(bucket, permits.wait_s(needed, now_s))
        needed_min, portion = permits.borrow_range(needed)
        borrowed, bucket_left = await self._used.borrow(
            app,
            bucket.name,
            per_s=bucket.per_s,
            burst=bucket.limit,
            needed=needed_min,
            requested=portion,
        )
        permits.add_borrowed(borrowed, bucket_left, now_s)
        if not permits.spend(needed):
            self._refuse(bucket, max(permits.wait_s(needed, now_s), 0.001))

    def _refuse(self, bucket: _Bucket, wait_s: float) -> None:
        if wait_s > 0:
            raise self._over_quota(bucket.quota, bucket.limit, wait_s)

    def _over_quota(self, quota: Quota, limit: int, wait_s: float) -> OverQuota:
        self._refusals[quota.name.lower()] += 1
        return OverQuota(quota, limit, retry_after_s=max(1, math.ceil(wait_s)))

    def _permits_of(self, app: App, bucket: _Bucket) -> Permits:
        key = app, bucket.quota
        permits = self._permits.get(key)
        if permits is None or permits.burst != bucket.limit:
            if len(self._permits) >= 2 * APPS_MAX:
                oldest = next(iter(self._permits))
                del self._permits[oldest]
                self._borrowing.pop(oldest, None)
            self._permits.pop(key, None)
            permits = Permits(bucket.per_s, bucket.limit, portion=bucket.portion)
            self._permits[key] = permits
        return permits

    async def _charge_players(
        self, app: App, limit: int, players: Sequence[Player]
    ) -> None:
        count, added = await self._player_count(app), len(players)
        if count.players + added > limit:
            if not count.exact:
                count = await self._player_count(app, again=True)
            added = await self._used.without_inbox(app, players)
            if added and count.players + added > limit:
                raise self._over_quota(Quota.PLAYERS, limit, RETRY_WHEN_FULL_MS / 1_000)
        if await self._used.note_players(app, players):
            exact = count.exact and added == 1
            self._counts[app] = _PlayerCount(count.players + added, count.at_s, exact)

    async def _player_count(self, app: App, *, again: bool = False) -> _PlayerCount:
        now_s = self._monotonic()
        count = self._counts.get(app)
        if again or count is None or now_s - count.at_s >= COUNT_TTL_S:
            count = _PlayerCount(await self._used.count_players(app), now_s)
            if len(self._counts) >= APPS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[app] = count
        return count

    async def _take_schedule_slots(
        self, charge: Charge, app: App, limit: int, slots: dict[str, int]
    ) -> None:
        wait_ms, new_slots = await self._used.take_schedule_slots(
            app, slots, slots_max=limit
        )
        if wait_ms:
            raise self._over_quota(Quota.PENDING_SCHEDULES, limit, wait_ms / 1_000)
        charge.add_slots(new_slots)


class _Bucket(NamedTuple):
    """A bucket of the store's: what is in it, how much, and how fast it fills."""

    quota: Quota
    name: str
    limit: int
    per_s: float
    portion: int


def _per_s(limits: QuotaLimits) -> _Bucket:
    limit = limits.publishes_per_s
    portion = max(1, limit // PORTIONS_PER_S)
    return _Bucket(Quota.PUBLISHES_PER_S, "publishes", limit, limit, portion)


def _per_day(limits: QuotaLimits) -> _Bucket:
    limit = limits.bytes_per_day
    portion = max(1, limit // PORTIONS_PER_DAY)
    return _Bucket(Quota.BYTES_PER_DAY, "bytes", limit, limit / DAY_S, portion)

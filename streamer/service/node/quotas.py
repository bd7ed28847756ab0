"""
Quotas of apps, charged before anything is written.

Decides which limits apply to an app at present, which requests are refused, and what is
refunded if a request stored nothing. Knows the usage of quotas in the store, and the
records of apps. Knows nothing of what is published, nor of how a surface encodes a
refusal.

Notifications per second and bytes per day are charged to permits that this node has
borrowed, so that most publishes need no command (`core.quotas`). Players and schedule
slots are counted in the store, and only if an app has such a quota; usage before an app
had the quota is not counted.

A node caches the number of an app's players for a second. Below the quota, any player
may receive notifications; at the quota, only players that have an inbox. So an app can
exceed the quota by the players that it first sends to within a second, and the count
itself is accurate to about two percent.
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
from ...store.client.faults import STORE_FAILURES

__all__ = ["APPS_MAX", "Charge", "Quotas"]

APPS_MAX: Final = 10_000
"""Apps whose permits are cached; the oldest is evicted, and its permits are lost."""

COUNT_TTL_S: Final = 1.0
"""How long the number of an app's players is cached."""

DAY_S: Final = 86_400

PORTIONS_PER_S: Final = 50
"""How often per second a node borrows for an app that is at its rate. Each node may
burst up to 20 ms of quota beyond what the bucket allows."""

PORTIONS_PER_DAY: Final = 1_440
"""A node that ends loses up to one minute of quota."""

FindApp = Callable[[App], Awaitable[AppRecord | None]]


class Charge:
    """
    The permits and schedule slots that are charged for a request.

    It is the context manager of `Quotas.charged`, which has the arguments, and is what
    entering it returns. Not a `contextlib.asynccontextmanager`, which was a twentieth
    of a publish.
    """

    __slots__ = (
        *("_payments", "_quotas", "_slots"),
        *("app", "deliveries", "players", "size", "slots"),
    )

    def __init__(
        self,
        quotas: Quotas,
        app: App,
        deliveries: int,
        size: int,
        players: Iterable[Player],
        slots: dict[str, int],
    ) -> None:
        self.app = app
        self.deliveries = deliveries
        self.size = size
        self.players = players
        self.slots = slots
        self._quotas = quotas
        self._payments: list[tuple[Permits, int]] = []
        self._slots: set[str] = set()

    async def __aenter__(self) -> Charge:
        try:
            await self._quotas.charge(self)
        except (Rejected, StoreUnavailable):
            await self._refund_all()
            raise
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, *_: object
    ) -> None:
        if error_type is not None and issubclass(
            error_type, Rejected | StoreUnavailable
        ):
            await self._refund_all()

    def add_payment(self, permits: Permits, paid: int) -> None:
        """Note permits that were spent."""
        self._payments.append((permits, paid))

    def add_slots(self, slots: Collection[str]) -> None:
        """Note schedule slots that were taken."""
        self._slots.update(slots)

    def refund(self, share: float = 1.0) -> None:
        """Refund a share of the permits, once, for what was not stored."""
        for permits, paid in self._payments:
            permits.refund(round(paid * share))
        self._payments.clear()

    async def release_slots(self, ids: Collection[str]) -> None:
        """Release the slots of these schedules, if this request took them."""
        if slots := self._slots.intersection(ids):
            self._slots -= slots
            await self._quotas.free_schedule_slots(self.app, slots)

    async def _refund_all(self) -> None:
        """Refund all permits and release all slots."""
        with contextlib.suppress(*STORE_FAILURES):
            # Slots that are not released become free when their schedules would be due.
            self.refund()
            await self.release_slots(tuple(self._slots))


class _PlayerCount(NamedTuple):
    """The number of an app's players at a time; an upper bound if not `exact`."""

    players: int
    at_s: float
    exact: bool = True


class Quotas:
    """
    The quotas of all apps, as one node enforces them.

    Args:
        find_app: Returns an app's record, which may be some seconds old.
        used: The usage of quotas in the store.
        defaults: The limits of an app without quotas of its own.
        monotonic: A monotonic clock in seconds.
        refusals: Counts refusals by quota.

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
        # In the order of insertion: the oldest is the first.
        self._permits: dict[tuple[App, Quota], Permits] = {}
        self._borrowing: dict[tuple[App, Quota], asyncio.Lock] = {}
        self._counts: dict[App, _PlayerCount] = {}

    @classmethod
    def unlimited(cls, redis: RedisConnection) -> Quotas:
        """Return quotas that limit nothing."""

        async def no_record(_: App) -> None:
            return None

        return cls(no_record, QuotaUsage(redis), QuotaLimits())

    async def limits(self, app: App) -> QuotaLimits:
        """Return the limits that apply to an app. Raises StoreUnavailable."""
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
    ) -> Charge:
        """
        Return a context manager that charges an app for its block.

        If the block raises Rejected or StoreUnavailable, it has stored nothing, and
        everything is refunded.

        Args:
            app: The app to charge.
            deliveries: Notifications, once per inbox that they are stored in.
            size: Their bytes, counted in the same way.
            players: The players whose inboxes they are stored in; iterated only if the
                app has a quota of players.
            slots: The times at which new schedules are due, in ms, by id.

        Entering it raises:
            OverQuota: A quota is used up; nothing was charged.
            StoreUnavailable: The quotas cannot be checked; nothing was charged.

        """
        return Charge(self, app, deliveries, size, players, slots or {})

    async def charge(self, charge: Charge) -> None:
        """Charge what `charge` asks for, and note in it what was charged."""
        app = charge.app
        limits = await self.limits(app)
        if not any(limits):
            return
        if limits.publishes_per_s:
            await self._charge_bucket(charge, app, _per_s(limits), charge.deliveries)
        if limits.bytes_per_day:
            await self._charge_bucket(charge, app, _per_day(limits), charge.size)
        if limits.players and (players := list(charge.players)):
            await self._charge_players(app, limits.players, players)
        if limits.pending_schedules and charge.slots:
            limit = limits.pending_schedules
            await self._take_schedule_slots(charge, app, limit, charge.slots)

    async def free_schedule_slots(self, app: App, ids: Collection[str]) -> None:
        """
        Release the slots of cancelled schedules.

        If the store is unavailable, they stay taken until their schedules would be due.
        """
        with contextlib.suppress(*STORE_FAILURES):
            if ids and (await self.limits(app)).pending_schedules:
                await self._used.free_schedule_slots(app, tuple(ids))

    async def move_schedule_slot(self, app: App, schedule_id: str, due_ms: int) -> None:
        """Move a schedule's slot to another time; see `free_schedule_slots`."""
        with contextlib.suppress(*STORE_FAILURES):
            if (await self.limits(app)).pending_schedules:
                await self._used.move_schedule_slot(app, schedule_id, due_ms)

    async def _charge_bucket(
        self, charge: Charge, app: App, bucket: _Bucket, needed: int
    ) -> None:
        if not needed:
            return
        permits = self._permits_of(app, bucket)
        if not permits.spend(needed):
            # Before the lock: refused requests of a flood must not wait for each other.
            self._refuse(bucket, permits.wait_s(needed, self._monotonic()))
            lock = self._borrowing.setdefault((app, bucket.quota), asyncio.Lock())
            async with lock:
                await self._borrow(app, bucket, permits, needed)
        charge.add_payment(permits, needed)

    async def _borrow(
        self, app: App, bucket: _Bucket, permits: Permits, needed: int
    ) -> None:
        """
        Borrow the missing permits, unless another request did meanwhile, and spend.
        """
        if permits.spend(needed):
            return
        # Before the reply, so that requests are never refused for too long.
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
    """A token bucket in the store: its quota, capacity, rate and portions."""

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

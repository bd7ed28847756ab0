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
        self._paid: list[tuple[Permits, int]] = []
        self._places: set[str] = set()

    def note_paid(self, permits: Permits, paid: int) -> None:
        """Note what was paid with."""
        self._paid.append((permits, paid))

    def note_taken(self, places: Collection[str]) -> None:
        """Note which places were taken."""
        self._places.update(places)

    def give_back(self, share: float = 1.0) -> None:
        """Give back so much of what was paid, once: nothing was stored for it."""
        for permits, paid in self._paid:
            permits.give_back(round(paid * share))
        self._paid.clear()

    async def free(self, ids: Collection[str]) -> None:
        """Give the places of these schedules back, if this request took them."""
        if taken := self._places.intersection(ids):
            self._places -= taken
            await self._quotas.free_schedule_slots(self._app, taken)

    async def undo(self) -> None:
        """Give everything back."""
        self.give_back()
        await self.free(tuple(self._places))


class _Cost(NamedTuple):
    """What an app is to be charged for; see `Quotas.charged`."""

    app: App
    deliveries: int
    size: int
    players: Iterable[Player]
    places: dict[str, int]


class ChargedBlock:
    """
    A block that an app is charged for; gives its `Charge`.

    No `contextlib.asynccontextmanager`, which was a twentieth of a publish.
    """

    __slots__ = ("_asked", "_charge", "_quotas")

    def __init__(self, quotas: Quotas, asked: _Cost) -> None:
        self._quotas = quotas
        self._asked = asked
        self._charge = Charge(quotas, asked.app)

    async def __aenter__(self) -> Charge:
        try:
            await self._quotas.charge(self._charge, self._asked)
        except (Rejected, StoreUnavailable):
            await self._undo()
            raise
        return self._charge

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Rejected | StoreUnavailable):
            await self._undo()

    async def _undo(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            # Places that stay taken are free when their schedules would be due.
            await self._charge.undo()


class _Count(NamedTuple):
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
        self._counts: dict[App, _Count] = {}

    @classmethod
    def unlimited(cls, redis: RedisConnection) -> Quotas:
        """Return the quotas of a node where no app has any."""

        async def nobody(_: App) -> None:
            return None

        return cls(nobody, QuotaUsage(redis), QuotaLimits())

    async def limits(self, app: App) -> QuotaLimits:
        """Return what counts for an app. Raises StoreUnavailable."""
        record = await self._find_app(app)
        return record.quotas.over(self._defaults) if record else self._defaults

    def charged(
        self,
        app: App,
        *,
        deliveries: int,
        size: int,
        players: Iterable[Player] = (),
        places: dict[str, int] | None = None,
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
            places: When each schedule that is entered is due, by id.

        Entering it raises:
            OverQuota: A quota is used up; nothing was charged.
            StoreUnavailable: That cannot be told.

        """
        asked = _Cost(app, deliveries, size, players, places or {})
        return ChargedBlock(self, asked)

    async def charge(self, charge: Charge, asked: _Cost) -> None:
        """Charge what is asked for; see `charged`. What was paid is noted."""
        app = asked.app
        limits = await self.limits(app)
        if not any(limits):
            return
        if limits.publishes_per_s:
            await self._pay(charge, app, _per_s(limits), asked.deliveries)
        if limits.bytes_per_day:
            await self._pay(charge, app, _per_day(limits), asked.size)
        if limits.players and (players := list(asked.players)):
            await self._count(app, limits.players, players)
        if limits.pending_schedules and asked.places:
            most = limits.pending_schedules
            await self._take_places(charge, app, most, asked.places)

    async def free_schedule_slots(self, app: App, ids: Collection[str]) -> None:
        """
        Give back the places of schedules that are cancelled.

        Where the store is away they stay taken until their schedules would be due.
        """
        with contextlib.suppress(StoreUnavailable):
            if ids and (await self.limits(app)).pending_schedules:
                await self._used.free_schedule_slots(app, tuple(ids))

    async def move_schedule_slot(self, app: App, schedule_id: str, due_ms: int) -> None:
        """Keep a schedule's slot until `due_ms`; see `free_schedule_slots`."""
        with contextlib.suppress(StoreUnavailable):
            if (await self.limits(app)).pending_schedules:
                await self._used.move_schedule_slot(app, schedule_id, due_ms)

    async def _pay(
        self, charge: Charge, app: App, bucket: _Bucket, needed: int
    ) -> None:
        if not needed:
            return
        permits = self._permits_of(app, bucket)
        if not permits.pay(needed):
            # Before the queue: a flood of what is refused must not wait for itself.
            self._refuse(bucket, permits.wait_s(needed, self._monotonic()))
            lock = self._borrowing.setdefault((app, bucket.quota), asyncio.Lock())
            async with lock:
                await self._borrow(app, bucket, permits, needed)
        charge.note_paid(permits, needed)

    async def _borrow(
        self, app: App, bucket: _Bucket, permits: Permits, needed: int
    ) -> None:
        """Borrow what is missing and pay. What others borrowed meanwhile counts."""
        if permits.pay(needed):
            return
        # Older than the answer, so that waiting is never said to be in vain too long.
        now_s = self._monotonic()
        self._refuse(bucket, permits.wait_s(needed, now_s))
        least, wanted = permits.to_borrow(needed)
        lent, left = await self._used.borrow(
            app,
            bucket.name,
            per_s=bucket.per_s,
            burst=bucket.most,
            needed=least,
            requested=wanted,
        )
        permits.lend(lent, left, now_s)
        if not permits.pay(needed):
            self._refuse(bucket, max(permits.wait_s(needed, now_s), 0.001))

    def _refuse(self, bucket: _Bucket, wait_s: float) -> None:
        if wait_s > 0:
            raise self._over(bucket.quota, bucket.most, wait_s)

    def _over(self, quota: Quota, most: int, wait_s: float) -> OverQuota:
        self._refusals[quota.name.lower()] += 1
        return OverQuota(quota, most, retry_after_s=max(1, math.ceil(wait_s)))

    def _permits_of(self, app: App, bucket: _Bucket) -> Permits:
        key = app, bucket.quota
        permits = self._permits.get(key)
        if permits is None or permits.burst != bucket.most:
            if len(self._permits) >= 2 * APPS_MAX:
                oldest = next(iter(self._permits))
                del self._permits[oldest]
                self._borrowing.pop(oldest, None)
            self._permits.pop(key, None)
            permits = Permits(bucket.per_s, bucket.most, portion=bucket.portion)
            self._permits[key] = permits
        return permits

    async def _count(self, app: App, most: int, players: Sequence[Player]) -> None:
        known, come = await self._counted(app), len(players)
        if known.players + come > most:
            if not known.exact:
                known = await self._counted(app, again=True)
            come = await self._used.without_inbox(app, players)
            if come and known.players + come > most:
                raise self._over(Quota.PLAYERS, most, RETRY_WHEN_FULL_MS / 1_000)
        if await self._used.note_players(app, players):
            exact = known.exact and come == 1
            self._counts[app] = _Count(known.players + come, known.at_s, exact)

    async def _counted(self, app: App, *, again: bool = False) -> _Count:
        now_s = self._monotonic()
        known = self._counts.get(app)
        if again or known is None or now_s - known.at_s >= COUNT_TTL_S:
            known = _Count(await self._used.count_players(app), now_s)
            if len(self._counts) >= APPS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[app] = known
        return known

    async def _take_places(
        self, charge: Charge, app: App, most: int, places: dict[str, int]
    ) -> None:
        wait_ms, fresh = await self._used.take_schedule_slots(
            app, places, slots_max=most
        )
        if wait_ms:
            raise self._over(Quota.PENDING_SCHEDULES, most, wait_ms / 1_000)
        charge.note_taken(fresh)


class _Bucket(NamedTuple):
    """A bucket of the store's: what is in it, how much, and how fast it fills."""

    quota: Quota
    name: str
    most: int
    per_s: float
    portion: int


def _per_s(limits: QuotaLimits) -> _Bucket:
    most = limits.publishes_per_s
    portion = max(1, most // PORTIONS_PER_S)
    return _Bucket(Quota.PUBLISHES_PER_S, "publishes", most, most, portion)


def _per_day(limits: QuotaLimits) -> _Bucket:
    most = limits.bytes_per_day
    portion = max(1, most // PORTIONS_PER_DAY)
    return _Bucket(Quota.BYTES_PER_DAY, "bytes", most, most / DAY_S, portion)

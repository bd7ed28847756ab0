"""
What the console shows of an app and of the store, beside inboxes and samples.

Decides what is read for it, in a bounded number of commands. Knows the apps, the
quotas, the timetable and the nodes. Knows nothing of sessions, nor of how facts are
encoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from ...core.quotas import QuotaLimits
from ...core.schedule import Schedule
from ...errors import NotFound
from ...model import App, Entry, Log, Player
from ...store.access.apps import AppRecord, Apps, KeyRecord
from ...store.access.quotas import QuotaUsage
from ...store.client.connection import RedisConnection
from ...store.logs.receipts import Receipt, ReceiptStore
from ...store.scheduling.inspection import DueCounts, count_due, first_due
from ...store.scheduling.timetable import Timetable
from ..inspection.nodes import Answers, Nodes
from ..inspection.questions import (
    LOGS_MAX,
    Followers,
    FollowersAnswer,
    LoadSamples,
    LoadSamplesAnswer,
)
from .store_watch import StoreWatch

__all__ = ["AppFacts", "Audience", "ConsoleFacts", "StoreState"]

DUE_MAX: Final = 50
"""Pending schedules that are shown, those that are due first."""

ENTRIES_MAX: Final = 50
"""Entries of a player's log that are shown with those that have ended."""


class AppFacts(NamedTuple):
    """An app, its keys with the times of their last uses in ms, and its limits."""

    record: AppRecord
    keys: Sequence[tuple[KeyRecord, int | None]]
    limits: QuotaLimits
    players: int | None


class Audience(NamedTuple):
    """
    How many players a message would reach; `players` is None where nothing counts them.

    `online` are the streams that are open now on the nodes but those in `silent`; None
    where too many players are named.
    """

    players: int | None
    online: int | None
    silent: Sequence[str]


class StoreState(NamedTuple):
    """What the store reported at the last check. Times are ms, 0 for none."""

    durability: str
    memory: str
    used: int
    maximum: int
    fsyncs_delayed: int
    write_ok: bool
    replicas: int
    role: str
    version: str


class ConsoleFacts:
    """
    Facts for the console. All methods that are async raise StoreUnavailable.

    Args:
        redis: The connection to the store.
        apps: The apps and keys in the store.
        usage: What apps have used of their quotas.
        limits: Returns the limits of an app, which raises StoreUnavailable.
        receipts: The receipts of logs.
        timetable: The schedules.
        nodes: Asks all nodes.
        store_watch: Knows what the store reported.
        clock: Unix time in seconds.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        usage: QuotaUsage,
        limits: Callable[[App], Any],
        receipts: ReceiptStore,
        timetable: Timetable,
        nodes: Nodes,
        store_watch: StoreWatch,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._usage = usage
        self._limits = limits
        self._receipts = receipts
        self._timetable = timetable
        self._nodes = nodes
        self._store_watch = store_watch
        self._clock = clock

    async def of_app(self, app: App) -> AppFacts:
        """Return the facts of an app. O(keys). Raises NotFound."""
        record = await self._apps.get(app)
        if record is None:
            raise NotFound(f"the app {app}")
        keys = await self._apps.list_keys(app)
        used_ms = await self._apps.key_uses()
        limits: QuotaLimits = await self._limits(app)
        return AppFacts(
            record,
            [(key, used_ms.get(key.digest)) for key in keys],
            limits,
            await self._players(app, limits),
        )

    async def audience(self, app: App, logs: Sequence[Log]) -> Audience:
        """
        Return whom a message to `logs` would reach. O(logs + readers).

        Raises:
            LimitReached: Too many such operations wait for answers.

        """
        names = list({log.name: None for log in logs})
        online: int | None = None
        silent: Sequence[str] = ()
        if len(names) <= LOGS_MAX:
            question = Followers(app=app, logs=names)
            answers = await self._nodes.ask(question, FollowersAnswer)
            online = sum(answer.streams for answer in answers.of.values())
            silent = answers.silent
        players: int | None = len(names)
        if logs[0].is_audience:
            # Memberships of a topic are stored with the players: nothing counts them.
            is_topic = logs[0].topic is not None
            limits = await self._limits(app)
            players = None if is_topic else await self._players(app, limits)
        return Audience(players, online, silent)

    async def due(self, app: App) -> DueCounts:
        """Return how many schedules of an app are pending, and how many are late."""
        now_ms = int(self._clock() * 1_000)
        return await count_due(self._redis, app, now_ms=now_ms)

    async def first_due(self, app: App) -> list[Schedule]:
        """Return the schedules that are being sent, and those that are due first."""
        refs = await first_due(self._redis, app, count=DUE_MAX)
        schedules = await self._timetable.get_many(refs)
        # One that is missing was sent long ago, or is damaged.
        return [schedule for schedule in schedules if schedule is not None]

    async def entries(self, app: App, player: Player) -> list[tuple[Entry, Receipt]]:
        """Return the newest entries of a player's own log, with those that ended."""
        return await self._receipts.newest(Log(app, player), ENTRIES_MAX)

    async def samples(self, since_ms: int) -> Answers[LoadSamplesAnswer]:
        """
        Return the samples of all nodes that were taken after a time.

        Raises:
            LimitReached: Too many such operations wait for answers.

        """
        return await self._nodes.ask(LoadSamples(since_ms=since_ms), LoadSamplesAnswer)

    def store(self) -> StoreState | None:
        """Return what the store reported, None before its first check."""
        facts, watch = self._store_watch.facts, self._store_watch
        if facts is None:
            return None
        return StoreState(
            watch.durability,
            watch.memory,
            watch.memory_used,
            watch.memory_max,
            facts.fsyncs_delayed,
            facts.log_write_ok,
            facts.replicas,
            "replica" if facts.is_replica else "primary",
            facts.info.get("valkey_version") or facts.info.get("redis_version", ""),
        )

    async def _players(self, app: App, limits: QuotaLimits) -> int | None:
        # Players are counted only under a quota.
        return await self._usage.count_players(app) if limits.players else None

"""
Firing: taking schedules that are due out of the timetable.

Decides which ones are taken first, and how they are sent. A schedule for one player is
removed from the timetable and appended to the player's log by one script. A schedule
for an audience begins to be sent, which decides a race with a cancellation; then
`recipients` are served. Knows the scripts in ``lua/``. `service.scheduling.scheduler`
decides when to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.schedule import LATE_AFTER_MS, Schedule
from ...model import App, Log, new_epoch, new_tag
from ..client.connection import Command, RedisConnection, Script, ScriptCall
from ..client.replies import ok
from ..keys import BUCKETS
from ..logs.appending import INLINE_MAX
from ..logs.settings import LogSettings
from ..presence.leases import alive_nodes
from .schedule_records import (
    KEPT_MS,
    ScheduleRef,
    due_at_json,
    parse_member,
    require_app,
)

__all__ = ["Firing", "Look"]

_FIRE: Final = Script(
    "fire",
    includes=("_announce", "_whole", "_inbox", "_append", "_device", "_schedule"),
)
_BEGIN: Final = Script("begin", includes=("_announce", "_whole", "_inbox", "_schedule"))

_ALL: Final = range(BUCKETS)


class Look(NamedTuple):
    """
    What a look at some buckets has found.

    `first_ms` has when the first schedule of each bucket was due, None without one.
    """

    due: list[ScheduleRef]
    first_ms: dict[int, float | None]


class Firing:
    """
    The schedules of the store that are due.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    async def due(self, now_ms: int, *, limit: int) -> list[ScheduleRef]:
        """
        Return schedules that are due, earliest first: about `limit`, some of every app.

        Each app in each bucket has the same share of the limit, and at least one
        schedule, so a backlog of one app does not delay others. O(buckets + shares).
        Raises StoreUnavailable.
        """
        return (await self.look(_ALL, now_ms, limit=limit)).due

    async def look(self, buckets: Sequence[int], now_ms: int, *, limit: int) -> Look:
        """Look at some buckets; see `due`. O(buckets + shares)."""
        first_ms = await self._first_due(buckets)
        due = [b for b, ms in first_ms.items() if ms is not None and ms <= now_ms]
        apps = await self._apps_due(due, now_ms, limit=limit)
        share = max(1, limit // max(1, len(apps)))
        replies = await self._redis.call_many(
            [_earliest(self._keys.due(*app), now_ms, share) for app in apps]
        )
        refs: list[tuple[float, ScheduleRef]] = []
        for (bucket, _), reply in zip(apps, replies, strict=True):
            members = ok(reply)
            refs += [
                (float(due_ms), parse_member(bucket, member))
                for member, due_ms in zip(members[::2], members[1::2], strict=True)
            ]
        return Look([ref for _, ref in sorted(refs)], first_ms)

    async def fire(self, schedules: Sequence[Schedule]) -> int:
        """
        Fire schedules for one player each; return how many this call fired.

        A schedule that is not due, or was fired or cancelled elsewhere, is skipped.
        Raises as `RedisConnection.run`; firing again is harmless.
        """
        return sum(await self.fire_each(schedules))

    async def fire_each(self, schedules: Sequence[Schedule]) -> list[bool]:
        """Fire schedules as `fire` does; return for each whether this call fired it."""
        nodes: Sequence[bytes] = ()
        if any(schedule.to_latest for schedule in schedules):
            nodes = await alive_nodes(self._redis)
        calls = [self._fire_call(schedule, nodes) for schedule in schedules]
        return [bool(ok(reply)) for reply in await self._redis.run_many(calls)]

    async def begin_sending(self, refs: Sequence[ScheduleRef]) -> list[bool]:
        """Begin to send schedules for an audience; see `fire_each`."""
        calls = [
            ScriptCall(
                _BEGIN,
                (*ref.keys(self._keys), self._keys.sending(ref.bucket)),
                (
                    *self._settings.script_args(),
                    ref.member,
                    self._keys.notices(ref.bucket),
                ),
            )
            for ref in refs
        ]
        return [bool(ok(reply)) for reply in await self._redis.run_many(calls)]

    async def sending(self, buckets: Sequence[int] = _ALL) -> list[ScheduleRef]:
        """
        Return the schedules of some buckets that are being sent to an audience.

        Raises StoreUnavailable.
        """
        replies = await self._redis.call_many(
            [("ZRANGE", self._keys.sending(bucket), 0, -1) for bucket in buckets]
        )
        return [
            parse_member(bucket, member)
            for bucket, reply in zip(buckets, replies, strict=True)
            for member in ok(reply)
        ]

    async def _first_due(self, buckets: Sequence[int]) -> dict[int, float | None]:
        """Return when the first schedule of each bucket is due, None without one."""
        replies = await self._redis.call_many(
            [("ZRANGE", self._keys.due_apps(b), 0, 0, "WITHSCORES") for b in buckets]
        )
        return {
            bucket: float(first[1]) if (first := ok(reply)) else None
            for bucket, reply in zip(buckets, replies, strict=True)
        }

    async def _apps_due(
        self, buckets: Sequence[int], now_ms: int, *, limit: int
    ) -> list[tuple[int, App]]:
        """Return each bucket and app with a schedule that is due."""
        found = await self._redis.call_many(
            [
                _earliest(self._keys.due_apps(bucket), now_ms, limit)
                for bucket in buckets
            ]
        )
        return [
            (bucket, require_app(name))
            for bucket, reply in zip(buckets, found, strict=True)
            for name in ok(reply)[::2]
        ]

    def _fire_call(self, schedule: Schedule, nodes: Sequence[bytes]) -> ScriptCall:
        assert schedule.player is not None
        ref = ScheduleRef.of(schedule)
        log = Log(schedule.app, schedule.player)
        keys = [
            *self._keys.inbox(log),
            self._keys.mutes(log),
            *ref.keys(self._keys),
        ]
        if schedule.to_latest:
            keys += [self._keys.devices(log), self._keys.lease(log)]
        return ScriptCall(
            _FIRE,
            keys,
            (
                *self._settings.script_args(),
                self._settings.entries_max,
                new_epoch(),
                self._keys.channel(log),
                INLINE_MAX,
                ref.member,
                new_tag(),
                LATE_AFTER_MS,
                due_at_json(schedule),
                KEPT_MS,
                *nodes,
            ),
        )


def _earliest(key: str, now_ms: int, limit: int) -> Command:
    return "ZRANGEBYSCORE", key, "-inf", now_ms, "WITHSCORES", "LIMIT", 0, limit

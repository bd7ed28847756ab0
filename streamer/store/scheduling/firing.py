"""
Firing: taking schedules that are due out of the timetable.

Decides which ones are taken first, and how they are sent. A schedule for one player is
removed from the timetable and appended to the player's log by one script. A schedule
for an audience begins to be sent, which decides a race with a cancellation; then
`recipients` are served. Knows the scripts in ``lua/``. `service.scheduling.scheduler`
decides when to look.

A key of the timetable may be damaged, and so may a schedule's record or a player's
inbox. Then what needs it is passed over, and all else is fired in time: a look leaves
out what has been `set_aside`, however far in front it stands, and asks for as much
more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ...core.schedule import LATE_AFTER_MS, Schedule
from ...core.trace_context import TraceContext
from ...errors import Unavailable
from ...model import App, Log, new_epoch, new_tag
from ..client.connection import Command, RedisConnection, Script, ScriptCall
from ..client.damage import Aside, of_parts, own, parsed
from ..client.replies import Reply
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

PART: Final = "timetable"
"""The name of this part in `Damage`."""

AGAIN_MS: Final = 250
"""How soon a bucket is looked at again in which something is due that is set aside."""


class Look(NamedTuple):
    """
    What a look at some buckets has found.

    `first_ms` has when to look at each bucket again, None for not before it changes:
    when its first schedule is due, if nothing there is damaged.
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
        self._aside = Aside()

    def set_aside(self, ref: ScheduleRef) -> None:
        """Pass over a schedule that could not be fired, for a while."""
        self._aside.add(ref)

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
        first_ms = await self._first_due(buckets, now_ms)
        due = [b for b, ms in first_ms.items() if ms is not None and ms <= now_ms]
        apps = await self._apps_due(due, now_ms, limit=limit)
        share = max(1, limit // max(1, len(apps)))
        aside = self._aside.current()
        passed = Counter(ref[:2] for ref in aside if isinstance(ref, ScheduleRef))
        replies = await self._redis.call_many(
            [
                _earliest(self._keys.due(*app), now_ms, share + passed[app])
                for app in apps
            ]
        )
        refs: list[tuple[float, ScheduleRef]] = []
        for (bucket, app), reply in zip(apps, of_parts(replies), strict=True):
            if isinstance(reply, Unavailable):
                continue
            found = self._members(self._keys.due(bucket, app), bucket, reply, app=app)
            refs += [item for item in found if item[1] not in aside][:share]
        fruitful = {ref.bucket for _, ref in refs}
        for bucket in due:
            if bucket not in fruitful:
                # Damaged, away, set aside, or fired by another scheduler a moment ago.
                first_ms[bucket] = now_ms + AGAIN_MS
        return Look([ref for _, ref in sorted(refs)], first_ms)

    async def fire(self, schedules: Sequence[Schedule]) -> int:
        """
        Fire schedules for one player each; return how many this call fired.

        A schedule that is not due, or was fired or cancelled elsewhere, is skipped, and
        so is one that the store refuses to fire; see `fire_each`. Firing again is
        harmless.

        Raises:
            Unavailable: Some schedules were not fired.

        """
        return sum(await self.fire_each(schedules))

    async def fire_each(
        self,
        schedules: Sequence[Schedule],
        *,
        traces: Mapping[str, TraceContext] | None = None,
    ) -> list[bool]:
        """
        Fire schedules as `fire` does; return for each whether this call fired it.

        One that the store refuses alone, because a key of its own is damaged, is set
        aside, and stays in the timetable. The `traces`, by the ids of schedules, are
        announced with what is fired.
        """
        nodes: Sequence[bytes] = ()
        if any(schedule.to_latest for schedule in schedules):
            nodes = await alive_nodes(self._redis)
        traces = traces or {}
        calls = [self._fire_call(it, nodes, traces.get(it.id)) for it in schedules]
        refs = [ScheduleRef.of(schedule) for schedule in schedules]
        return self._outcomes(refs, await self._redis.run_many(calls))

    async def begin_sending(self, refs: Sequence[ScheduleRef]) -> list[bool]:
        """
        Begin to send schedules for an audience; see `fire_each`.

        One without a record is removed from the timetable.
        """
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
        return self._outcomes(refs, await self._redis.run_many(calls))

    async def sending(self, buckets: Sequence[int] = _ALL) -> list[ScheduleRef]:
        """
        Return the schedules of some buckets that are being sent to an audience.

        Without those that are set aside. Raises StoreUnavailable.
        """
        replies = await self._redis.call_many(
            [("ZRANGE", self._keys.sending(bucket), 0, -1) for bucket in buckets]
        )
        refs: list[ScheduleRef] = []
        for bucket, reply in zip(buckets, of_parts(replies), strict=True):
            if isinstance(reply, Unavailable):
                continue  # Its part of the cluster is away. It is walked to again.
            key = self._keys.sending(bucket)
            refs += [ref for _, ref in self._members(key, bucket, reply, scores=False)]
        return [ref for ref in refs if ref not in self._aside]

    def _members(
        self,
        key: str,
        bucket: int,
        reply: Reply,
        *,
        app: App | None = None,
        scores: bool = True,
    ) -> list[tuple[float, ScheduleRef]]:
        """Return times and schedules of a zset; pass over what is damaged."""
        members = own(reply)
        if isinstance(members, Exception):
            self._redis.damage.note(PART, key, members)
            return []
        times = members[1::2] if scores else [b"0"] * len(members)
        found = []
        for member, at_ms in zip(members[:: 1 + scores], times, strict=True):
            ref = parsed(parse_member, bucket, member)
            if isinstance(ref, Exception) or app not in (None, ref.app):
                self._redis.damage.note(PART, key, f"has a member {member!r}")
            else:
                found.append((float(at_ms), ref))
        return found

    def _outcomes(
        self, refs: Sequence[ScheduleRef], replies: Sequence[Reply]
    ) -> list[bool]:
        for ref, reply in zip(refs, replies, strict=True):
            if isinstance(own(reply), Exception):
                self._redis.damage.note(PART, f"schedule {ref.id} of {ref.app}", reply)
                self.set_aside(ref)
        return [reply == 1 for reply in replies]

    async def _first_due(
        self, buckets: Sequence[int], now_ms: int
    ) -> dict[int, float | None]:
        """Return when the first schedule of each bucket is due, None without one."""
        replies = await self._redis.call_many(
            [("ZRANGE", self._keys.due_apps(b), 0, 0, "WITHSCORES") for b in buckets]
        )
        first_ms: dict[int, float | None] = {}
        for bucket, reply in zip(buckets, of_parts(replies), strict=True):
            if isinstance(reply, Unavailable):
                # Its part of the cluster is away, and the others are not.
                first_ms[bucket] = now_ms + AGAIN_MS
                continue
            first = own(reply)
            if isinstance(first, Exception):
                self._redis.damage.note(PART, self._keys.due_apps(bucket), first)
                # No notice tells when this key is repaired. Every bucket is walked to.
                first = None
            first_ms[bucket] = float(first[1]) if first else None
        return first_ms

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
        apps = []
        for bucket, reply in zip(buckets, of_parts(found), strict=True):
            if isinstance(reply, Unavailable):
                continue
            key, names = self._keys.due_apps(bucket), own(reply)
            if isinstance(names, Exception):
                self._redis.damage.note(PART, key, names)
                continue
            for name in names[::2]:
                app = parsed(require_app, name)
                if isinstance(app, Exception):
                    self._redis.damage.note(PART, key, f"has a member {name!r}")
                else:
                    apps.append((bucket, app))
        return apps

    def _fire_call(
        self, schedule: Schedule, nodes: Sequence[bytes], trace: TraceContext | None
    ) -> ScriptCall:
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
                "" if trace is None else trace.fields,
                *nodes,
            ),
        )


def _earliest(key: str, now_ms: int, limit: int) -> Command:
    return "ZRANGEBYSCORE", key, "-inf", now_ms, "WITHSCORES", "LIMIT", 0, limit

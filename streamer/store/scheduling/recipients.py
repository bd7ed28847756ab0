"""
The recipients of schedules that have an audience, and which of them are served.

Decides how recipients are stored, served and counted, bucket by bucket. Knows the
scripts in ``lua/``. `service.scheduling.sender` decides how many to serve at a time and
in which order.

The recipients in a bucket are one list, in the slot of their logs. Each step removes
some from the list and appends to their logs, atomically. After a crash the list is
therefore exactly what is left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ...core.schedule import AHEAD_MAX_MS, LATE_AFTER_MS, Schedule
from ...core.trace_context import TraceContext
from ...model import Log, Player, new_epoch, new_tag
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.damage import own, parsed
from ..client.replies import ok
from ..keys import bucket_of
from ..logs.appending import INLINE_MAX
from ..logs.settings import DAY_MS, LogSettings
from ..presence.leases import alive_nodes
from .schedule_records import KEPT_MS, ScheduleRef, due_at_json

__all__ = ["Recipients"]

RECIPIENTS_MS: Final = AHEAD_MAX_MS + KEPT_MS
"""A schedule without its list would be sent to nobody. So the list lives as long as a
schedule can wait, plus the longest outage that may delay it."""

PART: Final = "recipients"
"""The name of this part in `Damage`."""

_ENLIST: Final = Script("enlist", includes=("_whole",))
_DELIVER: Final = Script(
    "deliver",
    includes=("_announce", "_whole", "_inbox", "_append", "_device", "_schedule"),
)
_POSTPONE: Final = Script("postpone", includes=("_whole",))
_FINISH: Final = Script("finish", includes=("_whole", "_inbox", "_schedule"))
_CLOSE: Final = Script("close", includes=("_whole",))


class Recipients:
    """
    The recipients of all schedules that have an audience.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    async def enlist(self, ref: ScheduleRef, players: Iterable[str]) -> list[int]:
        """
        Store the recipients of a schedule, before the schedule is added.

        Returns their buckets. Idempotent. Raises as `RedisConnection.run`.
        """
        by_bucket: dict[int, list[str]] = {}
        for player in players:
            by_bucket.setdefault(bucket_of(ref.app, player), []).append(player)
        calls = [
            ScriptCall(
                _ENLIST,
                (self._keys.recipients(bucket, ref.app, ref.id),),
                (RECIPIENTS_MS, *names),
            )
            for bucket, names in by_bucket.items()
        ]
        for reply in await self._redis.run_many(calls):
            ok(reply)
        return sorted(by_bucket)

    async def renew(self, schedule: Schedule) -> None:
        """Renew the lifetime of a schedule's recipients, as if it were added now."""
        commands = [
            (
                "PEXPIRE",
                self._keys.recipients(bucket, schedule.app, schedule.id),
                RECIPIENTS_MS,
            )
            for bucket in schedule.buckets
        ]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)

    async def enlist_cards(
        self, schedule: Schedule, buckets: Sequence[int]
    ) -> dict[int, int]:
        """
        Store the players of a campaign's active cards as recipients, once.

        Returns the number of recipients in each bucket, whether served or not. A bucket
        whose cards are damaged is left out.
        """
        calls = [
            ScriptCall(
                _ENLIST,
                (
                    self._keys.recipients(bucket, schedule.app, schedule.id),
                    self._keys.cards(bucket, schedule.app, schedule.campaign),
                ),
                (RECIPIENTS_MS,),
            )
            for bucket in buckets
        ]
        counts: dict[int, int] = {}
        for bucket, reply in zip(
            buckets, await self._redis.run_many(calls), strict=True
        ):
            if isinstance(own(reply), Exception):
                where = f"cards of campaign {schedule.campaign} of {schedule.app}"
                self._redis.damage.note(PART, where, reply)
            else:
                counts[bucket] = reply
        return counts

    async def next_players(
        self, schedule: Schedule, bucket: int, *, limit: int
    ) -> tuple[list[Player], int | None]:
        """
        Return the next recipients of a schedule in a bucket, and the total.

        The total is the number of recipients in the bucket once all are served. It is
        None while some are left, or if no recipients were stored.

        Raises:
            ResponseError: The list is damaged.

        """
        key = self._keys.recipients(bucket, schedule.app, schedule.id)
        names = await self._redis.call("LRANGE", key, 0, limit - 1)
        found = parsed(_recipients, names)
        if isinstance(found, Exception):
            raise found
        return found

    async def deliver(
        self,
        schedule: Schedule,
        bucket: int,
        players: Sequence[Player],
        *,
        trace: TraceContext | None = None,
    ) -> int:
        """
        Serve recipients if they are the next ones; return the number served.

        A `trace` is announced with their entries.

        Raises:
            ResponseError: The inbox of one of them is damaged. None was served.

        """
        keys = [self._keys.recipients(bucket, schedule.app, schedule.id)]
        nodes = await alive_nodes(self._redis) if schedule.to_latest else []
        args: list[str | bytes | int] = [
            *self._settings.script_args(),
            self._settings.entries_max,
            new_epoch(),
            INLINE_MAX,
            schedule.fragment,
            schedule.due_ms,
            LATE_AFTER_MS + schedule.spread_ms,
            due_at_json(schedule),
            schedule.type,
            schedule.expires_ms,
            schedule.collapse_key,
            "" if trace is None else trace.fields,
            len(nodes),
            *nodes,
        ]
        for player in players:
            log = Log(schedule.app, player)
            keys += [*self._keys.inbox(log), self._keys.mutes(log)]
            if nodes:
                keys += [self._keys.devices(log), self._keys.lease(log)]
            args += [player, self._keys.channel(log), new_tag()]
        served: int = await self._redis.run(_DELIVER, keys, args)
        return served

    async def postpone(self, schedule: Schedule, bucket: int, player: Player) -> None:
        """Move a recipient behind all others of its bucket, if it is the next one."""
        key = self._keys.recipients(bucket, schedule.app, schedule.id)
        await self._redis.run(_POSTPONE, (key,), (player,))

    async def finish(self, schedule: Schedule, counts: Mapping[int, int]) -> None:
        """
        Record that buckets are served, and how many recipients each had.

        With the last bucket the schedule is sent, unless it was cancelled. Idempotent.
        """
        ref = ScheduleRef.of(schedule)
        record, due, apps = ref.keys(self._keys)
        sending = self._keys.sending(ref.bucket)
        keys = record, sending, due, apps, self._keys.paused(ref.bucket, ref.app)
        buckets = len(schedule.buckets)
        calls = [
            ScriptCall(
                _FINISH,
                keys,
                (
                    *self._settings.script_args(),
                    ref.member,
                    bucket,
                    count,
                    buckets,
                    KEPT_MS,
                ),
            )
            for bucket, count in counts.items()
        ]
        # The end of a list has to outlive every node that may still be serving it.
        expire = [
            ("PEXPIRE", self._keys.recipients(bucket, ref.app, ref.id), DAY_MS)
            for bucket in counts
        ]
        for reply in await self._redis.run_many(calls, after=expire):
            ok(reply)

    async def close(self, schedule: Schedule) -> None:
        """
        Remove the recipients of a cancelled schedule who were not served yet.

        Nobody is served afterwards, and the schedule's `delivered` is exact.
        Idempotent. Raises as `RedisConnection.run`.
        """
        await self.finish(schedule, await self.remove_unserved(schedule))

    async def remove_unserved(self, schedule: Schedule) -> dict[int, int]:
        """
        Remove recipients as `close` does; return how many of each bucket were served.

        Without the buckets that were finished, and those whose list is damaged.
        """
        served = await self.served_buckets(schedule)
        buckets = [bucket for bucket in schedule.buckets if bucket not in served]
        calls = [
            ScriptCall(
                _CLOSE,
                (self._keys.recipients(bucket, schedule.app, schedule.id),),
                (DAY_MS,),
            )
            for bucket in buckets
        ]
        counts = {}
        for bucket, reply in zip(
            buckets, await self._redis.run_many(calls), strict=True
        ):
            if isinstance(own(reply), Exception):
                where = f"recipients of schedule {schedule.id} of {schedule.app}"
                self._redis.damage.note(PART, where, reply)
            else:
                counts[bucket] = reply
        return counts

    async def served_buckets(self, schedule: Schedule) -> set[int]:
        """Return the buckets of a schedule that are served. Raises StoreUnavailable."""
        key = ScheduleRef.of(schedule).record_key(self._keys)
        names = await self._redis.call("HKEYS", key)
        return {int(name[1:]) for name in names if name[1:].isdigit()}


def _recipients(names: list[bytes]) -> tuple[list[Player], int | None]:
    players = [Player(name.decode()) for name in names if name[:1] != b"\0"]
    if not players and names:
        return [], int(names[0][1:])
    return players, None

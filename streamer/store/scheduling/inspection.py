"""
An inspection of the timetable: what in it is damaged, for `streamer doctor`, and what
of an app is due, for the console.

Knows the keys of the timetable and what the scripts write there. Changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ...core.schedule import LATE_AFTER_MS
from ...model import App
from ..client.connection import RedisConnection
from ..client.damage import own, parsed
from ..client.replies import Reply
from ..keys import BUCKETS
from .schedule_records import ScheduleRef, parse_member, parse_record, require_app

__all__ = [
    "DueCounts",
    "Inspection",
    "count_due",
    "first_due",
    "inspect_timetable",
]

FIRST: Final = 100
"""Schedules looked at of each app in each bucket, those that are due first."""

BATCH: Final = 1_000
"""Records read in one packet."""


class Inspection(NamedTuple):
    """How many schedules were looked at, and each damage found, for operators."""

    schedules: int
    damaged: list[str]


class DueCounts(NamedTuple):
    """
    How many schedules of an app are pending, being sent, pending too long, and paused.
    """

    pending: int
    sending: int
    late: int
    paused: int


async def count_due(redis: RedisConnection, app: App, *, now_ms: int) -> DueCounts:
    """
    Count the schedules of an app. O(buckets), in one packet.

    One is late that is pending `LATE_AFTER_MS` after it was due. Keys that are damaged
    count as empty.

    Raises:
        StoreUnavailable: The store cannot be read at present.

    """
    due = [redis.keys.due(bucket, app) for bucket in range(BUCKETS)]
    sending = [redis.keys.sending(bucket) for bucket in range(BUCKETS)]
    paused = [redis.keys.paused(bucket, app) for bucket in range(BUCKETS)]
    overdue_ms = now_ms - LATE_AFTER_MS
    replies = await redis.call_many(
        [
            *(("ZCARD", key) for key in due),
            *(("ZCOUNT", key, "-inf", overdue_ms) for key in due),
            *(("ZRANGE", key, 0, -1) for key in sending),
            *(("ZCARD", key) for key in paused),
        ]
    )
    prefix = f"{app}:".encode()
    pending, late, sent, held = (
        [it for it in replies[first : first + BUCKETS] if not _is_damaged(it)]
        for first in range(0, 4 * BUCKETS, BUCKETS)
    )
    members = [member for found in sent for member in found]
    return DueCounts(
        # Among those that are due are the paused ones, much later.
        max(0, sum(pending) - sum(held)),
        sum(it.startswith(prefix) for it in members),
        sum(late),
        sum(held),
    )


async def first_due(
    redis: RedisConnection, app: App, *, count: int
) -> list[ScheduleRef]:
    """
    Return the schedules of an app that are being sent, paused, or due first.

    First those that are being sent, then the paused ones, those that were paused last
    before the others, then those that are due; at most `count` of each of the last two.
    O(buckets + count), in one packet. Keys and members that are damaged are left out.

    Raises:
        StoreUnavailable: The store cannot be read at present.

    """
    due = [redis.keys.due(bucket, app) for bucket in range(BUCKETS)]
    sending = [redis.keys.sending(bucket) for bucket in range(BUCKETS)]
    paused = [redis.keys.paused(bucket, app) for bucket in range(BUCKETS)]
    replies = await redis.call_many(
        [
            *(("ZRANGE", key, 0, count - 1, "WITHSCORES") for key in due),
            *(("ZRANGE", key, 0, -1, "WITHSCORES") for key in sending),
            *(("ZRANGE", key, -count, -1, "WITHSCORES") for key in paused),
        ]
    )
    found: list[list[tuple[float, ScheduleRef]]] = [[], [], []]
    for i, reply in enumerate(replies):
        if _is_damaged(reply):
            continue
        for member, score in zip(reply[::2], reply[1::2], strict=True):
            ref = parsed(parse_member, i % BUCKETS, member)
            if not isinstance(ref, Exception) and ref.app == app:
                found[i // BUCKETS].append((float(score), ref))
    pending, sent, held = ([ref for _, ref in sorted(it)] for it in found)
    # A paused one is also due, at the time at which it is cancelled.
    passed = set(held)
    pending = [ref for ref in pending if ref not in passed]
    return [*sent, *held[: -count - 1 : -1], *pending[:count]]


def _is_damaged(reply: Reply) -> bool:
    """Whether a key is damaged. Raises what concerns more than the key."""
    return isinstance(own(reply), Exception)


async def inspect_timetable(redis: RedisConnection) -> Inspection:
    """
    Look at the schedules that are due first, and at those that are being sent.

    O(buckets + apps x `FIRST`).

    Raises:
        StoreUnavailable: The store cannot be read at present.

    """
    keys = redis.keys
    damaged: list[str] = []

    def members(key: str, reply: Reply) -> list[bytes]:
        if isinstance(own(reply), Exception):
            damaged.append(f"{key}: {reply}")
            return []
        return list(reply)

    async def ranges(names: list[str], last: int) -> list[list[bytes]]:
        replies = await redis.call_many([("ZRANGE", name, 0, last) for name in names])
        return [members(*pair) for pair in zip(names, replies, strict=True)]

    buckets = range(BUCKETS)
    refs: dict[ScheduleRef, None] = {}

    def add_refs(key: str, bucket: int, found: list[bytes], app: App | None) -> None:
        for member in found:
            ref = parsed(parse_member, bucket, member)
            if isinstance(ref, Exception) or app not in (None, ref.app):
                damaged.append(f"{key} has a member {member!r}")
            else:
                refs[ref] = None

    due: list[tuple[int, App]] = []
    names = [keys.due_apps(bucket) for bucket in buckets]
    for bucket, key, found in zip(buckets, names, await ranges(names, -1), strict=True):
        for name in found:
            app = parsed(require_app, name)
            if isinstance(app, Exception):
                damaged.append(f"{key} has a member {name!r}")
            else:
                due.append((bucket, app))
    names = [keys.due(*one) for one in due]
    for one, key, found in zip(due, names, await ranges(names, FIRST - 1), strict=True):
        add_refs(key, one[0], found, one[1])
    names = [keys.sending(bucket) for bucket in buckets]
    for bucket, key, found in zip(buckets, names, await ranges(names, -1), strict=True):
        add_refs(key, bucket, found, None)
    listed = list(refs)
    for first in range(0, len(listed), BATCH):
        part = listed[first : first + BATCH]
        records = await redis.call_many(
            [("HGETALL", ref.record_key(keys)) for ref in part]
        )
        for ref, reply in zip(part, records, strict=True):
            record = own(reply)
            if not isinstance(record, Exception):
                record = parsed(parse_record, ref, reply)
            if record is None:
                damaged.append(f"{ref.record_key(keys)} is missing")
            elif isinstance(record, Exception):
                damaged.append(f"{ref.record_key(keys)}: {record}")
    return Inspection(len(listed), damaged)

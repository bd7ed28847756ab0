"""
An inspection of the timetable: what in it is damaged, for `streamer doctor`.

Knows the keys of the timetable and what the scripts write there. Changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ...model import App
from ..client.connection import RedisConnection
from ..client.damage import own, parsed
from ..client.replies import Reply
from ..keys import BUCKETS
from .schedule_records import ScheduleRef, parse_member, parse_record, require_app

__all__ = ["Inspection", "inspect_timetable"]

FIRST: Final = 100
"""Schedules looked at of each app in each bucket, those that are due first."""

BATCH: Final = 1_000
"""Records read in one packet."""


class Inspection(NamedTuple):
    """How many schedules were looked at, and each damage found, for operators."""

    schedules: int
    damaged: list[str]


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

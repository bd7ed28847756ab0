"""
Trimming: removing old entries from all logs, to free memory of the store.

A log is otherwise trimmed when it is used, and deleted a day after its last entry has
reached the retention. What is trimmed here is gone as if the retention had removed it.
Knows SCAN and XTRIM, which a full store accepts. Knows nothing of when to trim.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ...model import App
from ..client.connection import RedisConnection
from ..client.damage import own
from ..client.scanning import scan

__all__ = ["Trimmed", "trim_logs"]

SCAN_COUNT: Final = 1_000


class Trimmed(NamedTuple):
    """
    How many entries were removed, and from how many logs.

    `refused` is the number of logs that could not be trimmed.
    """

    entries: int
    logs: int
    refused: int = 0


async def trim_logs(
    redis: RedisConnection, *, before_us: int, app: App | None = None
) -> Trimmed:
    """
    Remove the entries that were stored before a time of the store's clock.

    Logs of other namespaces are left alone.

    Works through all keys of the store in packets, so other commands run between.
    Repeating it is harmless. O(keys + removed entries).

    Args:
        redis: The connection to the store.
        before_us: The time in µs of Unix time.
        app: Only logs of this app; None for those of all apps.

    Raises:
        StoreUnavailable: Some logs were not trimmed.
        OutcomeUnknown: Likewise.

    """
    entries = logs = refused = 0
    pattern = redis.keys.logs_pattern(app)
    options = ("MATCH", pattern, "COUNT", SCAN_COUNT, "TYPE", "stream")
    async for keys in scan(redis, *options):
        replies = await redis.call_many(
            [("XTRIM", key, "MINID", before_us) for key in keys], write=True
        )
        for key, removed in zip(keys, replies, strict=True):
            if isinstance(own(removed), Exception):
                refused += 1
                redis.damage.note("trim", key.decode(errors="replace"), removed)
            else:
                entries += removed
                logs += bool(removed)
    return Trimmed(entries, logs, refused)

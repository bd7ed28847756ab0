"""
A log as a numbered list, for surfaces that page by number instead of by cursor.

Decides how to read entries by number: in one script, and therefore at one moment. Knows
the script and its reply. Knows nothing of rights, nor of the content of entries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from ...model import Log
from ..client.connection import RedisConnection, Script
from .entries import PageEntry, parse_entry
from .settings import LogSettings

__all__ = ["NumberedLists", "NumberedPage"]

WALK_COUNT: Final = 100
"""Entries that `walk` reads at a time; each may have up to the maximum size."""

_NUMBERED_PAGE: Final = Script(
    "list", includes=("_whole", "_inbox", "_ranges", "_read_at")
)
_WHICH: Final = {None: "any", True: "read", False: "unread"}


class NumberedPage(NamedTuple):
    """Entries, newest first, and how many match in total."""

    total: int
    entries: list[PageEntry]


class NumberedLists:
    """
    All logs of the store, by number. Every method raises StoreUnavailable.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    async def page(
        self,
        log: Log,
        *,
        skip: int,
        count: int,
        read: bool | None = None,
        offsets: Sequence[int] = (),
    ) -> NumberedPage:
        """
        Return up to `count` entries after the first `skip` of those that match.

        Ended entries do not match. O(kept), at a few ns each, and O(log kept) for each
        run of adjacent entries returned.

        Args:
            log: The log.
            skip: Matching entries to skip.
            count: Maximum number of entries to return.
            read: True for read entries, False for unread ones, None for both.
            offsets: Entries to consider, newest first; empty for all.

        """
        args = (*self._settings.script_args(), _WHICH[read], skip, count)
        reply = await self._redis.run(
            _NUMBERED_PAGE, self._keys.inbox(log), (*args, *offsets), write=False
        )
        epoch, total, items, marks = reply
        entries = [
            PageEntry(int(epoch), item, read_at_ms)
            for item, read_at_ms in zip(items, marks, strict=True)
        ]
        return NumberedPage(total, entries)

    async def walk(self, log: Log) -> AsyncIterator[tuple[int, bytes]]:
        """
        Yield offset and fragment of every notification, newest first.

        Includes entries that have ended or are older than the retention, but not those
        that were purged. Uses XREVRANGE without a script, at a tenth of the cost; the
        parts are not of one moment.
        """
        newest = b"+"
        while True:
            items = await self._redis.call(
                "XREVRANGE", self._keys.inbox(log).log, newest, "-", "COUNT", WALK_COUNT
            )
            for item in items:
                entry = parse_entry(0, item)
                if entry.fragment:  # Control entries have none, either.
                    yield entry.offset, entry.fragment
            if len(items) < WALK_COUNT:
                return
            newest = b"(" + items[-1][0]

"""
An inbox as a numbered list, for readers that count where others have cursors.

Decides how the n-th entries of an inbox are asked of the store, one script and so one
moment. Knows the script and the shape of its reply. Knows nothing of who may read, nor
of what an entry says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from ...model import Log
from ..client.connection import RedisConnection, Script
from ..keys import inbox_keys
from .entries import PageEntry, parse_entry
from .settings import LogSettings

__all__ = ["NumberedLists", "NumberedPage"]

WALK_COUNT: Final = 100
"""Entries that a walk reads at a time, for what they may weigh."""

_NUMBERED_PAGE: Final = Script("list", includes=("_inbox", "_read_at"))
_WHICH: Final = {None: "any", True: "read", False: "unread"}


class NumberedPage(NamedTuple):
    """Entries newest first, and how many match in all."""

    total: int
    entries: list[PageEntry]


class NumberedLists:
    """
    All inboxes of the store, by number. Every method raises StoreUnavailable.

    Args:
        redis: The way to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
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

        Entries that are over do not match. O(kept), at some ns each, and O(log kept)
        for each stretch of entries returned.

        Args:
            log: Whose.
            skip: Entries that match and are not wanted.
            count: Entries that are.
            read: Whether they have a read mark; None for both.
            offsets: Those that may match, newest first; none stands for all.

        """
        args = (*self._settings.script_args(), _WHICH[read], skip, count)
        reply = await self._redis.run(
            _NUMBERED_PAGE, inbox_keys(log), (*args, *offsets), write=False
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

        Some may be too old, or over, already. Without a script: what is read in
        portions need not be of one moment, and costs the store a tenth.
        """
        newest = b"+"
        while True:
            items = await self._redis.call(
                "XREVRANGE", inbox_keys(log).log, newest, "-", "COUNT", WALK_COUNT
            )
            for item in items:
                entry = parse_entry(0, item)
                if not entry.withdraws:
                    yield entry.offset, entry.fragment
            if len(items) < WALK_COUNT:
                return
            newest = b"(" + items[-1][0]

"""
The newest entries of audiences' logs, kept as long as their logs are the same.

Decides how many bytes of entries a node keeps, and of which logs. Knows the items of a
log and which of them have ended. Knows nothing of players and their views.

All members of an audience read its log, and most pages show its newest entries. They
are read once for each state of the log, a few at a time, as far as any page needs them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ...core.streams.views import Audience
from ...model import TAG_MAX
from .entries import stream_id

__all__ = ["EntryMemory", "Item", "NewestEntries", "Order"]

BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of entries that a node keeps; at more, those go that it has kept longest."""

BYTES_OF_LOG_MAX: Final = 64 * 1024
"""Bytes from which on no further entries of one log are kept."""

KEPT_S: Final = 2.0
"""
How long entries are kept, in seconds. The state of a log that they belong to is
remembered for less, so older ones are of no use.
"""

_ITEM_BYTES: Final = 600
"""What an item takes beside its fragment, in Python objects."""

Order = tuple[int, int, int]
"""See `Position.order`."""

Item = list[Any]
"""An item of a log as the store returns it."""


class NewestEntries:
    """
    The newest entries of a log in one state, as far as they were read.

    `entries` are those that have not ended, with their orders, newest first. A range of
    what follows begins at `begin`, a stream id. `unknown` is not below the order of
    anything that was not read.

    Args:
        audience: The state of the log, with its bits.
        memory: Limits what is kept.

    """

    __slots__ = ("_audience", "_memory", "begin", "entries", "size", "unknown")

    def __init__(self, audience: Audience, memory: EntryMemory) -> None:
        self._audience = audience
        self._memory = memory
        self.clear()

    def clear(self) -> None:
        """Forget all entries."""
        head = self._audience.head
        self.entries: list[tuple[Order, Item]] = []
        self.begin = stream_id(head)
        self.unknown: Order = head.order
        self.size = 0

    def add(self, begin: str, items: Sequence[Item], limit: int, lower: Order) -> None:
        """
        Add what a range has returned, unless entries were added meanwhile.

        Args:
            begin: Where it begins, what `begin` was then.
            items: Its items, newest first.
            limit: How many it could have.
            lower: The order below which it has none.

        """
        if begin != self.begin or self.size >= BYTES_OF_LOG_MAX:
            return
        added, count, unknown = 0, 0, self.unknown
        for item in items:
            stream_id, fields = item
            at_us, _, offset_text = stream_id.partition(b"-")
            offset = int(offset_text)
            added += len(fields[3]) + _ITEM_BYTES
            # Without a text it was purged.
            if fields[3] and not self._audience.has_ended(offset):
                order = int(at_us), offset, int(fields[1])
                self.entries.append((order, item))
            count += 1
            # Offsets have no holes.
            unknown = int(at_us), offset - 1, TAG_MAX
            if self.size + added >= BYTES_OF_LOG_MAX:
                break
        if items:
            self.begin = f"({items[count - 1][0].decode()}"
        if count == len(items) < limit:
            unknown = lower[0], lower[1], -1
        self.unknown = unknown
        self._memory.note(self, added)


class EntryMemory:
    """The limit of what all `NewestEntries` of a node keep together."""

    def __init__(self) -> None:
        # With the times since when they are kept, the earliest first.
        self._kept: deque[tuple[float, NewestEntries]] = deque()
        self.size = 0
        """Bytes that are kept."""

    def note(self, newest: NewestEntries, added: int) -> None:
        """Note that bytes were added; forget what was kept too long, or is too much."""
        now_s = monotonic()
        if not newest.size and added:
            self._kept.append((now_s, newest))
        newest.size += added
        self.size += added
        while self._kept and (
            self.size > BYTES_MAX or self._kept[0][0] < now_s - KEPT_S
        ):
            _, oldest = self._kept.popleft()
            self.size -= oldest.size
            oldest.clear()

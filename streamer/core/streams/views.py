"""
A player's view of an audience's log: since when, and what is read or deleted.

Decides which of an audience's entries count for a player. Knows bitmaps as the store
keeps them, first bit first. Knows nothing of how they are read.

An audience's notification is stored once. The state that differs between players is
stored with the player: the position at which the player joined, and the offsets after
it that are read or deleted (`View`). The state that is equal for all is stored with the
log: its bounds, and the offsets that have ended (`Audience`).
"""

from __future__ import annotations

from typing import NamedTuple

from ...model import OFFSET_MAX, Entry, Log, Position

__all__ = ["Audience", "View", "is_after"]


def is_after(joined: Position, position: Position | Entry) -> bool:
    """Whether a position is after that of joining. In a new epoch every one is."""
    same_log = joined.epoch in (0, position.epoch)
    return not same_log or position.offset > joined.offset


class Audience(NamedTuple):
    """
    An audience's log at one moment.

    `ended` has one bit per offset from `base` on: set if the entry was withdrawn,
    replaced, has expired or is no notification. Offsets below `floor` were trimmed.
    """

    head: Position
    floor: int
    base: int
    ended: bytes

    def has_ended(self, offset: int) -> bool:
        """Whether the entry at an offset has ended."""
        return offset < self.base or _bit(self.ended, self.base, offset)


class View(NamedTuple):
    """
    A player's view of an audience.

    `joined` is the head of the log when the player joined; only entries after it are
    the player's. All offsets below `base` are done, that is read or deleted; `done` has
    one bit per offset from `base` on. A muted audience is shown nowhere. `deleted` has
    the offsets that the player deleted.
    """

    log: Log
    joined: Position
    base: int = 0
    done: bytes = b""
    muted: bool = False
    deleted: frozenset[int] = frozenset()

    def at(self, audience: Audience) -> View:
        """Return the view as it applies to the log: empty after a change of epoch."""
        if self.joined.epoch in (0, audience.head.epoch):
            return self
        return View(self.log, Position(audience.head.epoch, 0, 0, 0), muted=self.muted)

    def reaches(self, position: Position | Entry) -> bool:
        """Whether the player had joined before this position."""
        return is_after(self.joined, position)

    def shows(self, entry: Entry) -> bool:
        """Whether the player joined before this entry and has not deleted it."""
        if self.joined.epoch not in (0, entry.epoch):
            return True
        return self.reaches(entry) and entry.offset not in self.deleted

    def is_done(self, offset: int) -> bool:
        """Whether the player has read or deleted the entry at an offset."""
        return offset < self.base or _bit(self.done, self.base, offset)

    def unread(
        self, audience: Audience, *, first: int = 0, last: int = OFFSET_MAX
    ) -> int:
        """
        Return how many retained entries are unread and not ended. O(entries / 8).

        With `first` and `last` only entries at these offsets and between them count.
        """
        head, floor, base, ended = audience
        view = self if self.joined.epoch in (0, head.epoch) else self.at(audience)
        first = max(first, floor, view.joined.offset + 1, view.base)
        last = min(last, head.offset)
        if view.muted or first > last:
            return 0
        hidden = _bits(view.done, view.base, first, last) if view.done else 0
        if ended:
            hidden |= _bits(ended, base, first, last)
        return last - first + 1 - hidden.bit_count()

    def shown(self, audience: Audience) -> int:
        """Return how many retained entries have not ended and are not deleted."""
        view = self.at(audience)
        first = max(audience.floor, view.joined.offset + 1)
        last = audience.head.offset
        if view.muted or first > last:
            return 0
        hidden = _bits(audience.ended, audience.base, first, last)
        for offset in view.deleted:
            if first <= offset <= last:
                hidden |= 1 << (last - offset)
        return last - first + 1 - hidden.bit_count()


def _bit(bitmap: bytes, base: int, offset: int) -> bool:
    """Return the bit of an offset, which is not below `base`."""
    byte, bit = divmod(offset - base, 8)
    return byte < len(bitmap) and bool(bitmap[byte] >> (7 - bit) & 1)


def _bits(bitmap: bytes, base: int, first: int, last: int) -> int:
    """Return the bits of offsets `first` to `last` as a number; `last` is bit 0."""
    if not bitmap:
        return 0
    bits_after = len(bitmap) * 8 - 1 - (last - base)
    number = int.from_bytes(bitmap)
    number = number >> bits_after if bits_after >= 0 else number << -bits_after
    return number & ((1 << (last - first + 1)) - 1)

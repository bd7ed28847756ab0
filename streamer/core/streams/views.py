"""
What one player sees of an audience's log: from where on, and what is marked there.

Decides which of an audience's entries count for a player. Knows bitmaps as the store
keeps them, first bit first. Knows nothing of how they are read.

An audience's message is stored once, so that what differs per player is kept with the
player: the place at joining, and which offsets behind it are read or deleted (`View`).
What holds for everybody is kept with the log: its bounds, and which offsets are dead
(`Audience`).
"""

from __future__ import annotations

from typing import NamedTuple

from ...model import Entry, Log, Position

__all__ = ["Audience", "View", "is_after"]


def is_after(joined: Position, position: Position | Entry) -> bool:
    """Whether a place is behind that of joining. All of a log begun anew since is."""
    same_log = joined.epoch in (0, position.epoch)
    return not same_log or position.offset > joined.offset


class Audience(NamedTuple):
    """
    An audience's log at one moment.

    `ended` has a bit for each offset from `base` on that was withdrawn, replaced, has
    expired or is no notification. Offsets below `floor` have left.
    """

    head: Position
    floor: int
    base: int
    ended: bytes


class View(NamedTuple):
    """
    A player's view of an audience.

    `joined` is where the log stood when the player joined; what is behind it is for
    others. All offsets below `base` are read; `done` has a bit for each from there on.
    A muted audience is shown nowhere. `deleted` are offsets the player took out.
    """

    log: Log
    joined: Position
    base: int = 0
    done: bytes = b""
    muted: bool = False
    deleted: frozenset[int] = frozenset()

    def at(self, audience: Audience) -> View:
        """Return the view as it holds for that log: begun anew where the log was."""
        if self.joined.epoch in (0, audience.head.epoch):
            return self
        return View(self.log, Position(audience.head.epoch, 0, 0, 0), muted=self.muted)

    def reaches(self, position: Position | Entry) -> bool:
        """Whether the player had joined before that place of the log."""
        return is_after(self.joined, position)

    def shows(self, entry: Entry) -> bool:
        """Whether the player has this entry: joined before it, did not delete it."""
        if self.joined.epoch not in (0, entry.epoch):
            return True
        return self.reaches(entry) and entry.offset not in self.deleted

    def is_done(self, offset: int) -> bool:
        """Whether the player has read, or deleted, the entry at that offset."""
        return offset < self.base or bool(_bits(self.done, self.base, offset, offset))

    def unread(self, audience: Audience) -> int:
        """Return how many entries are kept, alive, and not read. O(kept / 8) bytes."""
        view = self.at(audience)
        first = max(audience.floor, view.joined.offset + 1, view.base)
        last = audience.head.offset
        if view.muted or first > last:
            return 0
        done = _bits(view.done, view.base, first, last)
        ended = _bits(audience.ended, audience.base, first, last)
        return last - first + 1 - (done | ended).bit_count()

    def shown(self, audience: Audience) -> int:
        """Return how many entries are kept, alive, and not deleted."""
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


def _bits(bitmap: bytes, base: int, first: int, last: int) -> int:
    """Return the bits of offsets `first` to `last` as a number, `last` lowest."""
    bits_after = len(bitmap) * 8 - 1 - (last - base)
    number = int.from_bytes(bitmap)
    number = number >> bits_after if bits_after >= 0 else number << -bits_after
    return number & ((1 << (last - first + 1)) - 1)

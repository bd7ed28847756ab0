"""
Everybody in an audience's log, and how one entry reaches them all.

Decides who of them is written to in one go. Knows strands, and by small protocols whose
they are and where bytes go. Knows nothing of sockets, Redis, tasks or clocks.

An audience's event is the same bytes for everybody. Those who are live, have all there
is and are written to in the same manner are *level*: an entry costs each of them one
write, and nothing else. What else there is to note of each, where it stands and how
much it was given, is the same for all of them, so it is noted once, here. Who has to be
treated by itself, because it ends, doubts its feed or hears something that is not for
everybody, *parts* first and takes along what was noted; with the next entry that it
takes it may be level again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ...model import Entry, Log, Position
from ..counters import Transport
from .cursor import part_of
from .subscription import is_plainly_next

if TYPE_CHECKING:
    from .audience_subscription import Strand
    from .codec import Codec

__all__ = ["ONE_BY_ONE", "TOLD_S", "Crowd", "Manner", "Outlet"]

TOLD_S: Final = 15.0
"""
How long after it was told where it is a reader is left alone, if it is one of many.

Where much is said, being told every second would cost as much as what is said. What it
loses who is cut off meanwhile is nothing: it is sent a little of it once more.
"""

ASKED_MAX: Final = 8
"""How many of those who are by themselves are asked where the log stands."""


class Outlet(Protocol):
    """How bytes go to many sinks of a kind."""

    def write_all(self, sinks: Iterable[Any], event: bytes, most: int) -> list[Any]:
        """Write an event to each as `Sink.write` does; return those without room."""


class _OneByOne:
    def write_all(self, sinks: Iterable[Any], event: bytes, most: int) -> list[Any]:
        return [sink for sink in sinks if not sink.write(event, most)]


ONE_BY_ONE: Final = _OneByOne()
"""For sinks that know no better way."""


class Manner(NamedTuple):
    """How a reader is written to. Those with the same manner may be level."""

    outlet: Outlet
    codec: Codec
    most: int
    """Bytes that may wait for one of them."""
    transport: Transport
    """What counts what they are given."""


class Crowd:
    """
    The strands of one audience's log.

    Args:
        log: It.

    """

    __slots__ = ("_level", "_log", "_part", "_told_s", "apart", "at", "given", "moved")

    def __init__(self, log: Log) -> None:
        self._log = log
        self.apart: dict[Strand, None] = {}
        """Those who are not level, in the order in which they came or parted."""
        self._level: dict[Manner, dict[Strand, Any]] = {}
        """The others, with their sinks, by the manner in which they are written to."""
        self.at: Position | None = None
        """Where those are who are level."""
        self.given = 0
        """How many entries there have been for whoever was level."""
        self.moved = False
        """Whether it was any since `tell` said so."""
        self._told_s = -TOLD_S
        self._part: tuple[Position | None, str] = None, ""
        """Where `part_of_cursor` was asked for last, and what it is there."""

    def __len__(self) -> int:
        return len(self.apart) + sum(map(len, self._level.values()))

    def __iter__(self) -> Iterator[Strand]:
        yield from tuple(self.apart)
        yield from self._those_level()

    def add(self, strand: Strand) -> None:
        self.apart[strand] = None

    def remove(self, strand: Strand) -> None:
        strand.part()
        del self.apart[strand]

    @property
    def head(self) -> Position | None:
        """Where the log stands, if somebody who is live in it knows."""
        if self._level:
            return self.at
        places = (strand.live_at for strand in islice(self.apart, ASKED_MAX))
        return next((place for place in places if place is not None), None)

    @property
    def part_of_cursor(self) -> str:
        """What says in a cursor where those are who are level."""
        at = self.at
        if self._part[0] is not at:
            self._part = at, "" if at is None else part_of(self._log, at)
        return self._part[1]

    def places(self) -> set[Position | None]:
        """Return all places at which somebody is live; None for those who are not."""
        places = {strand.live_at for strand in self.apart}
        return places | {self.at} if self._level else places

    def level(self, strand: Strand, at: Position) -> None:
        """Let a strand that has taken the entry at the head be level, if it can be."""
        found = strand.listener.manner()
        if found is None:
            return
        manner, sink = found
        self.at = at
        del self.apart[strand]
        self._level.setdefault(manner, {})[strand] = sink
        strand.level_in(self)

    def part(self, strand: Strand) -> None:
        """Note that a strand is by itself; `Strand.part` calls it."""
        for manner, strands in self._level.items():
            if strands.pop(strand, None) is not None:
                if not strands:
                    del self._level[manner]
                break
        self.apart[strand] = None

    def part_all(self) -> None:
        for strand in self._those_level():
            strand.part()

    def take(self, entry: Entry, position: Position) -> bool:
        """
        Give an entry to all who are level; return whether there was somebody.

        Where they may not take it without further ado they part, and take it each by
        itself.
        """
        if not self._level or self.at is None:
            return False
        if not entry.is_for_all or not is_plainly_next(entry, self.at):
            self.part_all()
            return False
        self.at = position
        self.given += 1
        self.moved = True
        for manner, strands in tuple(self._level.items()):
            self._write(manner, strands, manner.codec.entry(entry, None))
        return True

    def passing(self, notification: bytes) -> None:
        """Give everybody a notification, JSON, that is in no log."""
        for strand in tuple(self.apart):
            strand.passing(notification)
        for manner, strands in tuple(self._level.items()):
            self._write(manner, strands, manner.codec.passing(notification))

    def tell(self, now_s: float) -> Collection[Strand]:
        """Return those who are level if they have moved and are to be told so now."""
        if not self.moved or now_s - self._told_s < TOLD_S:
            return ()
        self.moved = False
        self._told_s = now_s
        return self._those_level()

    def _write(self, manner: Manner, strands: dict[Strand, Any], event: bytes) -> None:
        manner.transport.deliveries += len(strands)
        # A set: when a network fails, a great many have no room at the same time.
        full = set(manner.outlet.write_all(strands.values(), event, manner.most))
        if full:
            for strand in [strand for strand, sink in strands.items() if sink in full]:
                strand.listener.cut()

    def _those_level(self) -> list[Strand]:
        return [strand for strands in self._level.values() for strand in strands]

"""
The recent history of this process: entries, connections, refusals, acknowledgements.

Decides what is remembered and for how long: everything is in memory and bounded, the
newest replaces the oldest, and a restart forgets all of it. Knows readers by a small
protocol. Knows nothing of who asks.

The fan-out records an entry once per process, not once per connection: when it was
announced, and whether a reader took it at once. Which connections those were follows
from when each was open and how far it has come. What a connection was sent otherwise,
from a read of the log, is recorded for that connection (`replayed`).

At most about 30 MiB per process when everything is full, a half of it the events of
players. ``bench/remember.py`` measures that, and what it costs a delivery::

    entries              32,768
    reads of the log      8,192
    acknowledgements      8,192
    events               32,768   8 of each of 4,096 players
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from ...core.streams.audience_subscription import AudienceSubscription
from ...core.streams.subscription import Subscription
from ...errors import Disconnect
from ...model import Log, Position

__all__ = [
    "Announced",
    "AnnouncementRecord",
    "Closed",
    "History",
    "Place",
    "Refused",
    "Replayed",
    "places_of",
]

ENTRIES_MAX: Final = 32_768
REPLAYS_MAX: Final = 8_192
ACKS_MAX: Final = 8_192
PLAYERS_MAX: Final = 4_096
EVENTS_PER_PLAYER: Final = 8


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """
    How far a connection has come in a log.

    `name` is the log's. The connection has been sent the entries after offset `after`,
    as far as they are for it, up to offset `upto`.
    """

    name: str
    after: int
    upto: int


class Closed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    The end of a connection. Times are Unix ms.

    `code` is 0 if the client or the network has closed it.
    """

    at_ms: int
    connection: str
    transport: str
    device: str
    client: str
    connected_ms: int
    code: int
    reason: str
    places: tuple[Place, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    A refused request of a player whose credential was good, or has expired.

    `refusal` is the class of the error, such as ``limit_reached``, `reason` what of it,
    such as ``listeners_per_player``.
    """

    at_ms: int
    transport: str
    refusal: str
    reason: str
    client: str


AnnouncementRecord = tuple[Log, int, int, str, float]
"""
An announced entry: its log, offset and tag, the only device it is for or "", and when,
Unix time in seconds; negative if no reader took it at once.
"""


class Announced(NamedTuple):
    """
    An entry's announcement has reached this process.

    `written_ms` is when a reader took it, 0 if none did: to a large audience it is
    written later than it is announced. `device` is the only one it is for, "" for all.
    """

    at_ms: int
    written_ms: int
    device: str


class Replayed(NamedTuple):
    """A connection was sent the entries of a log from `first` to `last`."""

    log: Log
    connection: str
    first: int
    last: int
    at_ms: int


class _Acknowledged(NamedTuple):
    log: Log
    at_ms: int
    positions: tuple[tuple[str, int], ...]


class _Reader(Protocol):
    """What is needed of a `hub.Reader`."""

    connection: str
    device: str

    @property
    def joining(self) -> bool: ...

    @property
    def subscription(self) -> Subscription: ...


class History:
    """
    The recent history of one process.

    Args:
        clock_s: Returns Unix time in seconds.
        entries_max: How many entries are remembered.

    """

    def __init__(
        self,
        *,
        clock_s: Callable[[], float] = time.time,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._clock_s = clock_s
        self.announcements: deque[AnnouncementRecord] = deque(maxlen=entries_max)
        """
        Announced entries. A fan-out appends to it directly: with a call in between it
        would cost three times as much.
        """
        self._replays: deque[Replayed] = deque(maxlen=REPLAYS_MAX)
        self._acks: deque[_Acknowledged] = deque(maxlen=ACKS_MAX)
        self._events: OrderedDict[Log, list[Closed | Refused]] = OrderedDict()

    # Recording.

    def replayed(self, log: Log, connection: str, first: int, last: int) -> None:
        """Record that a connection was sent entries from a read of the log."""
        self._replays.append(Replayed(log, connection, first, last, self._now_ms()))

    def acknowledged(self, log: Log, positions: Sequence[tuple[str, int]]) -> None:
        """Record that a client of a player has logs, by name, up to offsets."""
        if positions:
            self._acks.append(_Acknowledged(log, self._now_ms(), tuple(positions)))

    def closed(
        self,
        log: Log,
        reader: _Reader,
        ended: tuple[int, str] | Disconnect,
        *,
        transport: str,
        client: str,
        connected_ms: int,
        followed: Iterable[AudienceSubscription] = (),
    ) -> None:
        """
        Record that a connection of a player has closed, by code and reason.

        `followed` are the audiences that it followed until then.
        """
        code, reason = ended
        closed = Closed(
            at_ms=self._now_ms(),
            connection=reader.connection,
            transport=transport,
            device=reader.device,
            client=client,
            connected_ms=connected_ms,
            code=code,
            reason=reason,
            places=tuple(places_of(log, reader, followed)),
        )
        self._note(log, closed)

    def refused(
        self, log: Log, *, transport: str, refusal: str, reason: str, client: str
    ) -> None:
        """Record that a request of a player was refused."""
        refused = Refused(
            at_ms=self._now_ms(),
            transport=transport,
            refusal=refusal,
            reason=reason,
            client=client,
        )
        self._note(log, refused)

    def forget(self, log: Log) -> None:
        """Forget everything about a player. O(what is remembered)."""
        self._events.pop(log, None)
        # In place, since fan-outs append to this very object.
        kept = [it for it in self.announcements if it[0] != log]
        self.announcements.clear()
        self.announcements.extend(kept)
        self._replays = deque(
            (it for it in self._replays if it.log != log), REPLAYS_MAX
        )
        self._acks = deque((it for it in self._acks if it.log != log), ACKS_MAX)

    # Looking up.

    def events_of(self, log: Log) -> list[Closed | Refused]:
        """Return the last refusals and ends of connections of a player, in order."""
        return list(self._events.get(log, ()))

    def announcements_of(
        self, wanted: Collection[tuple[Log, int, int]]
    ) -> dict[tuple[Log, int, int], Announced]:
        """
        Return the announcements of entries: each its log, offset and tag.

        O(what is remembered), about a millisecond.
        """
        entries, logs = set(wanted), {log for log, _, _ in wanted}
        found: dict[tuple[Log, int, int], Announced] = {}
        for log, offset, tag, device, at_s in self.announcements:
            if log in logs and (log, offset, tag) in entries:
                at_ms = int(abs(at_s) * 1_000)
                written_ms = at_ms if at_s > 0 else 0
                # The first one counts; a repetition changes nothing for readers.
                before = found.get((log, offset, tag))
                if before is None:
                    before = Announced(at_ms, written_ms, device)
                elif not before.written_ms:
                    before = before._replace(written_ms=written_ms)
                found[log, offset, tag] = before
        return found

    def replays_to(self, connections: Collection[str]) -> list[Replayed]:
        """Return what connections were sent from reads of logs, in order."""
        return [it for it in self._replays if it.connection in connections]

    def acknowledged_ms(self, log: Log, name: str, offset: int, since_ms: int) -> int:
        """
        Return when a client of a player first acknowledged an entry, 0 if unknown.

        `name` is the log that has the entry, stored at `since_ms`.
        """
        for ack in self._acks:
            if ack.log == log and ack.at_ms >= since_ms:
                for acked, upto in ack.positions:
                    if acked == name and upto >= offset:
                        return ack.at_ms
        return 0

    def _note(self, log: Log, event: Closed | Refused) -> None:
        events = self._events.get(log)
        if events is None:
            if len(self._events) == PLAYERS_MAX:
                self._events.popitem(last=False)
            self._events[log] = [event]
            return
        self._events.move_to_end(log)
        if len(events) == EVENTS_PER_PLAYER:
            del events[0]
        events.append(event)

    def _now_ms(self) -> int:
        return int(self._clock_s() * 1_000)


def places_of(
    log: Log, reader: _Reader, followed: Iterable[AudienceSubscription]
) -> Iterator[Place]:
    """
    Yield how far a reader has come in its player's log and in those that it followed.

    A log not read yet is missing.

    A stream that has not begun has been sent nothing, so all of its logs are missing.
    """
    if reader.joining:
        return
    own = reader.subscription.read_from
    if isinstance(own, Position):
        yield Place(log.name, 0, own.offset)
    for sub in followed:
        position, began = sub.read_from, sub.began_at
        if isinstance(position, Position) and began is not None:
            yield Place(sub.log.name, began.offset, position.offset)

"""
The logs of audiences, read without scripts.

Decides which commands tell the state of an audience's log and which of its entries have
ended, and when that takes the script. Knows the keys of a log. Knows nothing of players
and their views.

A page may show the logs of 17 audiences, and a script for each would cost twenty times
as much as the page. An audience's log needs less than a player's: it has no read marks,
so a bit of its bitmap means that the entry has ended. What only a script may do is to
end entries whose time has come, and to remove those that are older than the retention.
If either is due, the script reads this log.

Of a log that was read a moment ago, three fields tell whether it is still the same. All
else is remembered for `LENGTH_S`: its length, which nothing changes in silence but a
removal by hand, which of its entries have ended, and its newest entries.

Every command is for one log, so a packet can be split by slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from ...core.streams.views import Audience
from ...model import ZERO, Log, Position
from ..client.commands import Command, KeyedCommand, Packed
from ..client.connection import RedisConnection
from ..client.damage import own, parsed
from .entries import parse_audience
from .inbox import Inbox
from .newest_entries import EntryMemory, NewestEntries
from .settings import LogSettings

__all__ = ["Damaged", "EntryRange", "SharedLog", "SharedLogs"]

KNOWN_MAX: Final = 10_000
"""Logs whose bounds are remembered; at more, all are forgotten."""

LENGTH_S: Final = 1.0
"""
How long a log's length and bitmap are remembered, in seconds, while its state is the
same.

Entries that `streamer trim` removes are counted for as long.
"""

Damaged = ResponseError
"""What takes the place of a log that cannot be read."""

_STATE: Final = KeyedCommand(
    "HMGET", "epoch", "at_us", "head", "tag", "base", "ended", "ends_at"
)
_COMPARED: Final = KeyedCommand("HMGET", "head", "tag", "ended")
"""
What changes whenever a log does. A new epoch has a new entry, and so another tag.
"""
_EPOCH_AND_BASE: Final = KeyedCommand("HMGET", "epoch", "base")
_LENGTH: Final = KeyedCommand("XLEN")
_OLDEST: Final = KeyedCommand("XRANGE", "-", "+", "COUNT", "1")


class SharedLog(NamedTuple):
    """
    The state of an audience's log at one moment.

    `version` changes with everything that a page can show of the log. Until
    `is_complete`, it is not known which entries have ended, and the bits of `audience`
    are missing. `newest` has entries that were read in this state, if it is remembered.
    """

    audience: Audience
    version: str = ""
    is_complete: bool = True
    newest: NewestEntries | None = None


class EntryRange(NamedTuple):
    """A range of a log between two stream ids: up to `limit` items, newest first."""

    log: Log
    newest: str
    oldest: str
    limit: int


class _Known(NamedTuple):
    """
    What is known of a log since it was last looked at in full.

    As long as `epoch` and `floor` are the same, no entry is older than `oldest_us`.
    `shared` is the state that the replies `fields` gave; it ends at `ends_at_us`. The
    length was read at `read_at_s`. `is_settled` is whether the log has not changed
    between the last two reads of it: one that has is likely to change again. Then
    `compare` is sent, and until `due_us` the reply `compared` says that it is the same.
    """

    epoch: int
    floor: int
    oldest_us: int
    fields: list[bytes | None]
    shared: SharedLog
    ends_at_us: int
    read_at_s: float
    compare: list[Packed]
    compared: list[bytes | None]
    due_us: int
    is_settled: bool = True


_NONE: Final = SharedLog(Audience(ZERO, 1, 0, b""), "0.0.0.1.0")


class SharedLogs:
    """
    The logs of audiences. Every method raises StoreUnavailable.

    Args:
        redis: The connection to the store.
        inbox: The logs, by scripts.
        settings: The settings of all logs.

    """

    def __init__(
        self, redis: RedisConnection, inbox: Inbox, settings: LogSettings
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._inbox = inbox
        self._settings = settings
        self._known: dict[Log, _Known] = {}
        self._memory = EntryMemory()
        # Most apps have no log for everyone.
        self._absent: set[Log] = set()
        self._commands = lru_cache(maxsize=4_096)(self._commands_for)

    def _commands_for(self, log: Log) -> tuple[Packed, Packed, Packed, Packed]:
        state, entries, _ = self._keys.audience(log)
        return (
            *(_COMPARED.on(state), _STATE.on(state)),
            *(_LENGTH.on(entries), _OLDEST.on(entries)),
        )

    def state_commands(self, *logs: Log) -> list[list[Packed]]:
        """
        Return the commands for each log, one to four, whose replies `parse_states`
        parses.
        """
        now_s, get = monotonic(), self._known.get
        return [
            known.compare
            if (known := get(log))
            and known.is_settled
            and now_s < known.read_at_s + LENGTH_S
            else self._commands_beside(log, known)
            for log in logs
        ]

    def _commands_beside(self, log: Log, known: _Known | None) -> list[Packed]:
        """Return the commands for a log if to compare its state does not suffice."""
        compared, state, length, oldest = self._commands(log)
        if known is not None:
            return [state, length]
        if log in self._absent:
            return [compared]
        # Twice: an append in between would make the lowest offset wrong. Later it is
        # compared with the one that is known.
        return [length, state, length, oldest]

    def is_absent(self, log: Log) -> bool:
        """Whether a log had no entry when it was last looked at."""
        return log in self._absent

    def parse_states(
        self, logs: Sequence[tuple[Log, int]], replies: Sequence[Any], now_us: int
    ) -> dict[Log, SharedLog | Damaged | None]:
        """
        Return the states of logs; None for one that the script has to read.

        Args:
            logs: The logs, and how many replies each has.
            replies: The replies to their `state_commands`.
            now_us: The time of the store.

        Raises:
            StoreUnavailable: The store did not reply.

        """
        states: dict[Log, SharedLog | Damaged | None] = {}
        end = 0
        for log, count in logs:
            begin, end = end, end + count
            known = self._known.get(log)
            if (
                known
                and count == 1
                and now_us < known.due_us
                and replies[begin] == known.compared
            ):
                # Most logs have not changed.
                states[log] = known.shared
            else:
                states[log] = self._parse(log, replies[begin:end], now_us)
        return states

    def _parse(
        self, log: Log, replies: Sequence[Any], now_us: int
    ) -> SharedLog | Damaged | None:
        """Return the state of a log that is new, has changed, or may have."""
        for reply in replies:
            if isinstance(reply, Exception):
                return _as_damage(own(reply))
        return parsed(self._state, log, replies, now_us)

    def _state(self, log: Log, replies: Sequence[Any], now_us: int) -> SharedLog | None:
        known = self._known.get(log)
        if len(replies) == 1:
            (compared,) = replies
            if compared[0] is None:
                self._known.pop(log, None)
                return _NONE
            self._absent.discard(log)
            if known is None:
                return None
            if compared != known.compared:
                self._known[log] = known._replace(is_settled=False)
                return None
            shared, ends_at_us = known.shared, known.ends_at_us
        elif len(replies) == 4:
            before, fields, length, oldest = replies
            if before != length:
                return None
            if fields[0] is None:
                if len(self._absent) >= KNOWN_MAX:
                    self._absent.clear()
                self._absent.add(log)
                return _NONE
            shared, ends_at_us = self._parse_state(fields, length)
            known = None
            if oldest:
                at_us = int(oldest[0][0].partition(b"-")[0])
                head, floor = shared.audience.head, shared.audience.floor
                of_oldest = head.epoch, floor, at_us
                known = self._looked_at(log, *of_oldest, fields, shared, ends_at_us)
                self._note(log, known)
        elif known is None:
            return None  # Forgotten since the commands were made.
        else:
            fields, length = replies
            if fields[0] is None:
                self._known.pop(log, None)
                return _NONE
            shared, ends_at_us = self._parse_state(fields, length)
            before, of_oldest = known, known[:3]
            known = self._looked_at(log, *of_oldest, fields, shared, ends_at_us)
            known = known._replace(is_settled=fields == before.fields)
            self._known[log] = known
            head = shared.audience.head
            if head.epoch != known.epoch or head.offset - length + 1 != known.floor:
                self._known.pop(log, None)
                return None
        if 0 < ends_at_us <= now_us:
            return None
        retention_us = self._settings.retention_ms * 1_000
        if known is not None and known.oldest_us < now_us - retention_us:
            self._known.pop(log, None)
            return None
        return shared

    def _parse_state(
        self, fields: list[bytes | None], length: int
    ) -> tuple[SharedLog, int]:
        """
        Return the state of a log, and when its next entry expires, in microseconds.
        """
        integers = [int(it or 0) for it in fields]
        epoch, at_us, head, tag, base, expired, ends_at = integers
        position = Position(epoch, at_us, head, tag)
        audience = Audience(position, head - length + 1, base, b"")
        shared = SharedLog(audience, _version(audience, expired), fields[5] is None)
        return self._with_newest(shared), ends_at * 1_000

    def _with_newest(self, shared: SharedLog) -> SharedLog:
        if not shared.is_complete:
            return shared
        return shared._replace(newest=NewestEntries(shared.audience, self._memory))

    def _looked_at(
        self,
        log: Log,
        epoch: int,
        floor: int,
        oldest_us: int,
        fields: list[bytes | None],
        shared: SharedLog,
        ends_at_us: int,
    ) -> _Known:
        _, _, head, tag, _, ended, _ = fields
        too_old_us = oldest_us + self._settings.retention_ms * 1_000 + 1
        return _Known(
            *(epoch, floor, oldest_us, fields, shared, ends_at_us, monotonic()),
            compare=[self._commands(log)[0]],
            compared=[head, tag, ended],
            due_us=min(ends_at_us or too_old_us, too_old_us),
        )

    def _note(self, log: Log, known: _Known) -> None:
        self._absent.discard(log)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[log] = known

    async def read_by_script(self, logs: Sequence[Log]) -> list[SharedLog | Damaged]:
        """
        Return the state of logs, complete. It removes what is too old.

        The twin of `state_commands` and `read`, at five times their cost.
        """
        replies = await self._redis.run_many(
            [self._inbox.audience_call(log) for log in logs], write=False
        )
        return [
            _as_damage(own(reply))
            if isinstance(reply, Exception)
            else parsed(_parse_script, reply)
            for reply in replies
        ]

    async def read(
        self, incomplete: Sequence[tuple[Log, SharedLog]], ranges: Sequence[EntryRange]
    ) -> tuple[list[SharedLog | Damaged], list[list[Any] | Damaged]]:
        """
        Complete states of logs, and read items, newest first, in one packet.

        An entry that ends in the meantime may count as ended already. Entries that have
        left the log are missing.
        """
        commands: list[Command | Packed] = []
        for log, shared in incomplete:
            state, _, done = self._keys.audience(log)
            first = _first_byte(shared.audience)
            commands.append(("GETRANGE", done, first, -1))
            # The bitmap is moved, rarely: then its base is another one afterwards.
            commands.append(_EPOCH_AND_BASE.on(state))
        for range_ in ranges:
            entries = self._keys.audience(range_.log)[1]
            bounds = (range_.newest, range_.oldest)
            commands.append(("XREVRANGE", entries, *bounds, "COUNT", range_.limit))
        replies = await self._redis.call_many(commands)
        bits, items = replies[: 2 * len(incomplete)], replies[2 * len(incomplete) :]
        states: list[SharedLog | Damaged | None] = [
            _completed(shared, *bits[2 * i : 2 * i + 2])
            for i, (_, shared) in enumerate(incomplete)
        ]
        for i, (log, before) in enumerate(incomplete):
            now, known = states[i], self._known.get(log)
            if isinstance(now, SharedLog) and known and known.shared is before:
                # As long as the log is the same, nothing else has ended in it.
                states[i] = completed = self._with_newest(now)
                self._known[log] = known._replace(shared=completed)
        moved = [i for i, state in enumerate(states) if state is None]
        if moved:
            again = await self.read_by_script([incomplete[i][0] for i in moved])
            for i, later in zip(moved, again, strict=True):
                states[i] = _as_of(incomplete[i][1], later)
        found = [
            _as_damage(own(it)) if isinstance(it, Exception) else it for it in items
        ]
        return [state for state in states if state is not None], found


def _version(audience: Audience, expired: int) -> str:
    head = audience.head
    return f"{head.epoch}.{head.offset}.{head.tag}.{audience.floor}.{expired}"


def _as_damage(failure: Any) -> Damaged:
    """Return a failure of one log. Raises all others."""
    if isinstance(failure, ResponseError):
        return failure
    assert isinstance(failure, Exception)
    raise failure


def _first_byte(audience: Audience) -> int:
    """Return the first byte of the bitmap that is about an entry in the log."""
    return max(0, audience.floor // 8 - audience.base // 8)


def _completed(shared: SharedLog, bits: Any, now: Any) -> SharedLog | Damaged | None:
    for reply in (bits, now):
        if isinstance(reply, Exception):
            return _as_damage(own(reply))
    audience = shared.audience
    epoch, base = (int(it or 0) for it in now)
    if (epoch, base) != (audience.head.epoch, audience.base):
        return None
    first = audience.base + 8 * _first_byte(audience)
    # Most bits are zeros, for the newest entries, and bits that are missing are zeros.
    ended = bits.rstrip(b"\0")
    return SharedLog(audience._replace(base=first, ended=ended), shared.version)


def _as_of(shared: SharedLog, later: SharedLog | Damaged) -> SharedLog | Damaged:
    """Return the earlier state of a log with the bits of a later one."""
    if not isinstance(later, SharedLog):
        return later
    before, now = shared.audience, later.audience
    if before.head.epoch != now.head.epoch:
        # The log was lost meanwhile, and nothing of it is kept.
        gone = before._replace(floor=before.head.offset + 1, ended=b"")
        return SharedLog(gone, shared.version)
    floor = max(before.floor, now.floor)
    audience = before._replace(floor=floor, base=now.base, ended=now.ended)
    return SharedLog(audience, shared.version)


def _parse_script(reply: list[Any]) -> SharedLog:
    audience = parse_audience(reply)
    return SharedLog(audience, _version(audience, int(reply[4])))

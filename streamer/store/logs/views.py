"""
Views: which audiences a player has joined, and the player's marks in them.

Decides how to join, leave, mute and mark; each is one script in the player's slot, and
therefore atomic. Knows the scripts ``lua/views/`` and their replies. Knows nothing of
rights, nor of the content of entries.

An audience's log is in another slot than the player's keys, so no script can use both.
Entries are looked up in the log first (`find`), and then marked by offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from ...core.streams.views import View
from ...errors import Limit, LimitReached
from ...model import App, Log, Position, audience_log, everyone_log
from ..client.commands import KeyedCommand, Packed, pack_args
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.damage import parsed
from ..client.replies import ok
from ..presence.leases import Newcomer
from .entries import parse_position, position_args
from .settings import DAY_MS, LogSettings

__all__ = ["FoundOffsets", "PlayerCount", "PlayerViews", "Views"]

TOPICS_MAX: Final = 16

_VIEWS: Final = Script("views", includes=("_announce", "_whole", "_inbox", "_view"))
_JOIN: Final = Script("view_join", includes=("_announce", "_whole", "_inbox", "_view"))
_LEAVE: Final = Script(
    "view_leave", includes=("_announce", "_whole", "_inbox", "_view")
)
_MUTE: Final = Script("view_mute", includes=("_announce", "_whole", "_inbox", "_view"))
_MARK: Final = Script(
    "view_mark", includes=("_announce", "_whole", "_inbox", "_bits", "_view")
)
_READ_AT: Final = Script("view_read_at")
_FIND: Final = Script(
    "view_find",
    includes=(
        "_whole",
        "_inbox",
    ),
)

_ACKNOWLEDGE: Final = Script(
    "view_ack", includes=("_announce", "_whole", "_inbox", "_view")
)
_TALLY: Final = Script("tally", includes=("_whole",))
_COUNT: Final = Script("player_count", includes=("_whole", "_inbox"))

RUNS_MAX: Final = 50
"""Runs of offsets that one script counts."""

_BLOCK_SIZES: Final = [2**n for n in range(1, 17)]
"""The sizes of a tally's blocks of more than one entry, see ``lua/logs/tally.lua``."""

Tally = Literal["read", "acked"]
Change = Literal["ids", "unread", "deleted"]


_EVERYONE: Final = everyone_log(App("")).audience.encode()
_FIELDS: Final = ("in", "muted", "base", "done", "deleted")
_EVERYONE_FIELDS: Final = [f"{field} {_EVERYONE.decode()}" for field in _FIELDS]
_PEEK_VIEWS: Final = KeyedCommand("HMGET", "names", *_EVERYONE_FIELDS)
_PEEK_TTL: Final = KeyedCommand("PTTL")


class PlayerViews(NamedTuple):
    """
    A player's views.

    If the view of everyone's log is not among them, `known_since_us` is the time since
    when the player is known, in microseconds; otherwise it is meaningless.
    """

    views: list[View]
    known_since_us: int


class PlayerCount(NamedTuple):
    """
    A player's own log and views at one moment.

    `unread` entries of the log up to its `head`; `marks`, its version of read marks;
    `ends_at_ms`, when its next entry expires, 0 for never.
    """

    head: Position
    unread: int
    marks: int
    ends_at_ms: int
    views: list[View]


class FoundOffsets(NamedTuple):
    """
    Which positions a log knows, by their offsets, and its epoch and lowest offset.

    `live` and `ended` are notifications, `controls` control entries. `left` are below
    `floor`: their entries have left the log, or were never in it but in another one.
    """

    epoch: int
    floor: int
    live: list[int]
    ended: list[int]
    controls: list[int]
    left: list[int]

    @property
    def kept(self) -> list[int]:
        """The offsets of entries that the log has, ended or not."""
        return [*self.live, *self.ended, *self.controls]


class Views:
    """
    The views of all players.

    Every method raises StoreUnavailable; those that write raise OutcomeUnknown, too.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    def read_call(self, log: Log) -> ScriptCall:
        """Return the call whose reply `parse` parses."""
        state, entries = self._keys.inbox(log)[:2]
        keys = (self._keys.views(log), state, entries)
        return ScriptCall(_VIEWS, keys, self._settings.script_args())

    def peek(self, log: Log) -> list[Packed]:
        """
        Return two commands whose replies `parse_peek` parses.

        The fast path of `read_call`, at a tenth of its cost for the store. It is for
        players with no view but that of everyone's log, which most are.
        """
        key = self._keys.views(log)
        return [_PEEK_VIEWS.on(key), _PEEK_TTL.on(key)]

    def topics_in(self, log: Log, fields: Sequence[Any]) -> list[Log]:
        """Return the logs of a player's topics, from the first reply to `peek`."""
        names = fields[0]
        if names is None or names == _EVERYONE:
            return []
        return [
            audience_log(log.app, name.decode())
            for name in names.split()
            if name != _EVERYONE
        ]

    def topics_command(self, log: Log, topics: Sequence[Log]) -> Packed:
        """Return the command for a player's views of topics."""
        head = b"*%d\r\n" % (2 + len(_FIELDS) * len(topics))
        key = pack_args("HMGET", self._keys.views(log))
        return b"".join([head, key, *map(_packed_fields, topics)])

    def parse_with_topics(
        self,
        log: Log,
        replies: Sequence[Any],
        topics: Sequence[Log],
        of_topics: Sequence[Any],
    ) -> PlayerViews | None:
        """
        Return a player's views, or None if the script has to read them.

        The fast path of `read_call` for players with topics.

        Args:
            log: The player's log.
            replies: The replies to `peek`.
            topics: The player's topics, see `topics_in`.
            of_topics: The reply to `topics_command`, empty if there are none.

        """
        (names, *everyone), ttl_ms = replies
        if names == _EVERYONE and everyone[0] is not None:
            return self.parse_peek(log, replies)
        if names is None or 0 <= ttl_ms < self._settings.retention_ms:
            return None
        audiences = list(topics)
        fields = [of_topics[i : i + 5] for i in range(0, len(of_topics), 5)]
        named = names.split()
        if _EVERYONE in named:
            place = named.index(_EVERYONE)
            audiences.insert(place, everyone_log(log.app))
            fields.insert(place, everyone)
        views = [
            _view_of(audience, *of_view)
            for audience, of_view in zip(audiences, fields, strict=True)
            # Otherwise the player has left the topic since the names were read.
            if of_view[0] is not None
        ]
        return PlayerViews(views, 0)

    def newcomer(self, position: Position) -> Newcomer:
        """Return how a new player joins everyone's log, at `position`."""
        joined = " ".join(map(str, position))
        return Newcomer(
            _EVERYONE.decode(), joined, 2 * (self._settings.retention_ms + DAY_MS)
        )

    def parse_peek(self, log: Log, replies: Sequence[Any]) -> PlayerViews | None:
        """Return a player's views, or None if the script has to read them."""
        (names, joined, *marks), ttl_ms = replies
        if names != _EVERYONE or 0 <= ttl_ms < self._settings.retention_ms:
            return None
        return PlayerViews([_view_of(everyone_log(log.app), joined, *marks)], 0)

    async def read_many(self, logs: Sequence[Log]) -> list[PlayerViews | Exception]:
        """Read the views of players, in two packets. A failed one is an exception."""
        peeks = await self._redis.call_many(
            [command for log in logs for command in self.peek(log)]
        )
        players: dict[Log, PlayerViews | Exception] = {}
        for log, *replies in zip(logs, peeks[::2], peeks[1::2], strict=True):
            failed = [reply for reply in replies if isinstance(reply, Exception)]
            player = failed[0] if failed else parsed(self.parse_peek, log, replies)
            if player is not None:
                players[log] = player
        if missing := [log for log in dict.fromkeys(logs) if log not in players]:
            calls = [self.read_call(log) for log in missing]
            replies = await self._redis.run_many(calls, write=False)
            for log, reply in zip(missing, replies, strict=True):
                is_failure = isinstance(reply, Exception)
                players[log] = reply if is_failure else parsed(parse, log, reply)
        return [players[log] for log in logs]

    async def count_many(self, logs: Sequence[Log]) -> list[PlayerCount | Exception]:
        """
        Count the unread entries of players' own logs, in one packet.

        A failed one is an exception. O(kept / 8) bytes each.
        """
        calls = [
            ScriptCall(
                _COUNT,
                (*self._keys.inbox(log), self._keys.views(log)),
                self._settings.script_args(),
            )
            for log in logs
        ]
        replies = await self._redis.run_many(calls, write=False)
        return [
            reply if isinstance(reply, Exception) else parsed(_player_count, log, reply)
            for log, reply in zip(logs, replies, strict=True)
        ]

    async def read(self, log: Log) -> PlayerViews:
        """Read the views of a player."""
        return parse(log, await self._redis.run(*self.read_call(log), write=False))

    async def join(
        self, log: Log, audience: Log, position: Position, *, announce: bool = True
    ) -> bool:
        """
        Join a player to an audience at `position`: later entries are the player's.

        Returns whether the player had not joined before. With `announce` the player's
        streams are notified.

        Raises:
            LimitReached: The player has `TOPICS_MAX` topics.

        """
        joined = " ".join(map(str, position))
        channel = self._keys.channel(log) if announce else ""
        args = (audience.audience, joined, TOPICS_MAX, channel)
        outcome = await self._run(_JOIN, log, args)
        if outcome < 0:
            raise LimitReached(Limit.TOPICS_PER_PLAYER)
        return bool(outcome)

    async def leave(self, log: Log, audience: Log) -> bool:
        """Remove a player, with its marks; return whether it had joined."""
        args = (audience.audience, self._keys.channel(log))
        return bool(await self._run(_LEAVE, log, args))

    async def mute(self, log: Log, audience: Log, *, muted: bool) -> bool:
        """Mute or unmute an audience. Returns whether the player has joined it."""
        args = (audience.audience, int(muted), self._keys.channel(log))
        return int(await self._run(_MUTE, log, args)) >= 0

    async def find(
        self, requests: Sequence[tuple[Log, Iterable[Position]]]
    ) -> list[FoundOffsets]:
        """
        Look positions up in logs, players' or audiences', in one packet.

        Time, offset and tag are compared, epochs are not. O(log n) for each position.
        """
        calls = []
        for log, positions in requests:
            args: list[str | bytes | int] = [*self._settings.script_args()]
            args += position_args([*positions])
            calls.append(ScriptCall(_FIND, self._keys.inbox(log), args))
        found = []
        for reply in await self._redis.run_many(calls, write=False):
            epoch, floor, *lists = ok(reply)
            live, ended, controls, left = (
                [int(offset) for offset in offsets] for offsets in lists
            )
            found.append(
                FoundOffsets(int(epoch), int(floor), live, ended, controls, left)
            )
        return found

    async def change(
        self,
        log: Log,
        audience: Log,
        change: Change,
        offsets: Sequence[int],
        *,
        epoch: int,
        floor: int,
    ) -> list[int]:
        """
        Mark entries as read or unread, or delete them, for a player.

        Returns the offsets that changed. O(offsets), and O(kept / 8) bytes.
        """
        args: list[str | int] = [
            audience.audience,
            epoch,
            floor,
            self._keys.channel(log),
        ]
        args += [change, *offsets]
        return [int(o) for o in await self._run(_MARK, log, args)]

    async def mark_up_to(
        self, log: Log, marks: Sequence[tuple[Log, int, int, int]]
    ) -> list[list[range]]:
        """
        Mark all entries of audiences up to an offset as read, in one packet.

        Returns the runs of offsets that changed, for each audience. O(kept / 8) bytes
        each.

        Args:
            log: The player's log.
            marks: For each audience its log, the offset, and the log's epoch and floor.

        """
        keys = (self._keys.views(log), self._keys.inbox(log)[0])
        channel = self._keys.channel(log)
        calls = []
        for audience, offset, epoch, floor in marks:
            mark = (audience.audience, epoch, floor, channel, "upto", offset)
            calls.append(
                ScriptCall(_MARK, keys, (*self._settings.script_args(), *mark))
            )
        changed = []
        for reply in await self._redis.run_many(calls):
            bounds = [int(offset) for offset in ok(reply)]
            changed.append(
                [
                    range(first, last + 1)
                    for first, last in zip(bounds[::2], bounds[1::2], strict=True)
                ]
            )
        return changed

    async def acknowledge(self, log: Log, audience: Log, position: Position) -> range:
        """
        Record that a client has all entries of an audience up to an existing one.

        Returns the offsets that had not been acknowledged before.
        """
        args = (audience.audience, position.epoch, position.offset)
        before = await self._run(_ACKNOWLEDGE, log, args)
        return range(0) if before < 0 else range(before + 1, position.offset + 1)

    async def count(
        self,
        what: Tally,
        changes: Sequence[tuple[Log, Sequence[range]]],
        *,
        by: int = 1,
    ) -> None:
        """
        Add `by` to the number of players who have read or acknowledged entries.

        The entries are runs of offsets in audiences' logs. O(log n) for a run of n. The
        numbers are in other slots than the player's marks. A node that stops between
        the two leaves them too low.
        """
        waiting = [(audience, [*runs]) for audience, runs in changes if runs]
        while waiting:
            # In parts, so that no script holds the store for long.
            calls = []
            for audience, runs in waiting:
                bounds = [n for run in runs[:RUNS_MAX] for n in (run[0], run[-1])]
                keys = (self._keys.tally(audience), self._keys.inbox(audience).log)
                args = (self._settings.retention_ms, what, by, *bounds)
                calls.append(ScriptCall(_TALLY, keys, args))
            for reply in await self._redis.run_many(calls):
                ok(reply)
            waiting = [
                (audience, runs[RUNS_MAX:])
                for audience, runs in waiting
                if len(runs) > RUNS_MAX
            ]

    async def counts(self, audience: Log, offset: int) -> tuple[int, int]:
        """Return how many players have read an entry, and how many acknowledged it."""
        blocks = [str(offset)]
        blocks += [f"{offset - offset % size}+{size}" for size in _BLOCK_SIZES]
        numbers = await self._redis.call(
            "HMGET",
            self._keys.tally(audience),
            *(f"read {block}" for block in blocks),
            *(f"acked {block}" for block in blocks),
        )
        read, acked = numbers[: len(blocks)], numbers[len(blocks) :]
        return sum(int(n or 0) for n in read), sum(int(n or 0) for n in acked)

    async def acked_offset(self, log: Log, audience: Log, epoch: int) -> int:
        """Return the highest offset of an audience's log that a client acknowledged."""
        field = f"acked {audience.audience}"
        acked = await self._redis.call("HGET", self._keys.views(log), field)
        of_epoch, _, offset = (acked or b"0 0").partition(b" ")
        return int(offset) if int(of_epoch) == epoch else 0

    async def read_at_ms(
        self, log: Log, requests: Sequence[tuple[Log, Sequence[int]]]
    ) -> list[list[int]]:
        """Return when a player marked entries as read, in Unix ms; 0 if unknown."""
        keys = (self._keys.views(log),)
        calls = [
            ScriptCall(_READ_AT, keys, (audience.audience, *offsets))
            for audience, offsets in requests
        ]
        return [ok(reply) for reply in await self._redis.run_many(calls, write=False)]

    async def marks_of(
        self, log: Log, marked: Sequence[tuple[Log, Sequence[int]]]
    ) -> dict[tuple[Log, int], int]:
        """
        Return what `read_at_ms` does, by audience and offset, in one plain command.

        The fast path of `read_at_ms`, which runs a script for each audience.
        """
        if not marked:
            return {}
        fields = [f"upto {audience.audience}" for audience, _ in marked]
        fields += [
            f"read {audience.audience} {offset}"
            for audience, offsets in marked
            for offset in offsets
        ]
        reply = await self._redis.call("HMGET", self._keys.views(log), *fields)
        ranges, own = reply[: len(marked)], iter(reply[len(marked) :])
        times = {}
        for (audience, offsets), upto in zip(marked, ranges, strict=True):
            marks = [mark.split(b":") for mark in (upto or b"").split()]
            for offset, ms in zip(offsets, own, strict=False):
                # Each range is longer than the one before it.
                covering = (at for last, at in marks if int(last) >= offset)
                times[audience, offset] = int(ms or next(covering, 0))
        return times

    async def _run(self, script: Script, log: Log, args: Sequence[str | int]) -> Any:
        keys = (self._keys.views(log), self._keys.inbox(log)[0])
        return await self._redis.run(
            script, keys, (*self._settings.script_args(), *args)
        )


def parse(log: Log, reply: list[Any]) -> PlayerViews:
    """Return the views in a reply to `Views.read_call`."""
    since_us, views = reply
    return PlayerViews([_view(log, *fields) for fields in views], int(since_us))


def _player_count(log: Log, reply: list[Any]) -> PlayerCount:
    head, unread, marks, ends_at, views = reply
    return PlayerCount(
        parse_position(head),
        unread,
        marks,
        int(ends_at),
        [_view(log, *fields) for fields in views],
    )


@lru_cache(maxsize=4096)
def _packed_fields(topic: Log) -> Packed:
    return pack_args(*(f"{field} {topic.audience}" for field in _FIELDS))


_NOTHING: Final[frozenset[int]] = frozenset()


# Players who are new since the last message to everyone joined at the same position.
@lru_cache(maxsize=1024)
def _position(text: bytes) -> Position:
    return Position(*map(int, text.split()))


def _view_of(
    audience: Log,
    joined: bytes,
    muted: bytes | None,
    base: bytes | int | None,
    done: bytes | None,
    deleted: bytes | None,
) -> View:
    """Return the view of an audience from its fields, in the order of `_FIELDS`."""
    return View(
        audience,
        _position(joined),
        int(base) if base else 0,
        done or b"",
        muted is not None,
        frozenset(map(int, deleted.split())) if deleted else _NOTHING,
    )


def _view(
    log: Log,
    name: bytes,
    joined: bytes,
    muted: int,
    base: int,
    done: bytes,
    deleted: bytes,
) -> View:
    """Return the view of an audience from what a script returns of it."""
    audience = audience_log(log.app, name.decode())
    of_view = joined, b"1" if muted else None, base, done, deleted
    return _view_of(audience, *of_view)

"""
What players see of audiences, as the store remembers it.

Decides how joining, leaving and marking are asked of the store, each one script in
the player's slot and so one atomic step. Knows the scripts in ``lua/view*`` and the
shape of their replies. Knows nothing of who may do what, nor of what audiences say.

An audience's log lies in another slot than the player, so no script sees both: what is
marked is looked up in the log first (`find_live`), and marked by offset then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from ...core.streams.views import View
from ...errors import Limit, LimitReached
from ...model import App, Log, Position, audience_log, everyone_log
from ..client.commands import KeyedCommand, Packed
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.replies import ok
from ..keys import channel, inbox_keys, tally_key, views_key
from ..presence.leases import Newcomer
from .settings import DAY_MS, LogSettings

__all__ = ["LiveOffsets", "PlayerViews", "Views"]

TOPICS_MAX: Final = 16

_VIEWS: Final = Script("views", includes=("_inbox", "_view"))
_JOIN: Final = Script("view_join", includes=("_inbox", "_view"))
_LEAVE: Final = Script("view_leave", includes=("_inbox", "_view"))
_MUTE: Final = Script("view_mute", includes=("_inbox", "_view"))
_MARK: Final = Script("view_mark", includes=("_inbox", "_view"))
_READ_AT: Final = Script("view_read_at")
_FIND: Final = Script("view_find", includes=("_inbox",))

_ACKNOWLEDGE: Final = Script("view_ack", includes=("_inbox", "_view"))
_TALLY: Final = Script("tally")

Tally = Literal["read", "acked"]
Change = Literal["ids", "unread", "deleted"]


_EVERYONE: Final = everyone_log(App("")).audience.encode()
_EVERYONE_FIELDS: Final = [
    f"{field} {_EVERYONE.decode()}"
    for field in ("in", "muted", "base", "done", "deleted")
]
_PEEK_VIEWS: Final = KeyedCommand("HMGET", "names", *_EVERYONE_FIELDS)
_PEEK_TTL: Final = KeyedCommand("PTTL")


class PlayerViews(NamedTuple):
    """
    A player's views.

    Where everybody's is not among them, `known_since_ms` is since when the player is
    known.
    """

    views: list[View]
    known_since_ms: int


class LiveOffsets(NamedTuple):
    """Offsets of entries that are in an audience's log and alive."""

    epoch: int
    floor: int
    offsets: list[int]


class Views:
    """
    All players' views. Every method raises StoreUnavailable, a writing one
    OutcomeUnknown.

    Args:
        redis: The way to the store.
        settings: The settings of all logs.

    """

    def __init__(self, redis: RedisConnection, settings: LogSettings) -> None:
        self._redis = redis
        self._settings = settings

    def read_call(self, log: Log) -> ScriptCall:
        """Return the call whose reply `parse` takes."""
        state, entries = inbox_keys(log)[:2]
        return ScriptCall(
            _VIEWS, (views_key(log), state, entries), self._settings.script_args()
        )

    def peek(self, log: Log) -> list[Packed]:
        """
        Return two commands whose replies `parse_peek` takes.

        They are a tenth of the script for the store, and most players have nothing but
        a view of everybody's log.
        """
        key = views_key(log)
        return [_PEEK_VIEWS.on(key), _PEEK_TTL.on(key)]

    def newcomer(self, position: Position) -> Newcomer:
        """Let a player that was never seen be one of everybody from `position` on."""
        joined = " ".join(map(str, position))
        return Newcomer(
            _EVERYONE.decode(), joined, 2 * (self._settings.retention_ms + DAY_MS)
        )

    def parse_peek(self, log: Log, replies: Sequence[Any]) -> PlayerViews | None:
        """Return a player's views; None where it has others, or they are to be kept."""
        (names, joined, *marks), left_ms = replies
        if names != _EVERYONE or 0 <= left_ms < self._settings.retention_ms:
            return None
        muted, base, done, deleted = marks
        view = _view(
            *(log, names, joined, muted is not None, int(base or 0)),
            *(done or b"", deleted or b""),
        )
        return PlayerViews([view], 0)

    async def read_many(self, logs: Sequence[Log]) -> list[PlayerViews | Exception]:
        """Read the views of players; a failed one is an exception."""
        peeks = await self._redis.call_many(
            [command for log in logs for command in self.peek(log)]
        )
        found: dict[Log, PlayerViews | Exception] = {}
        for log, *replies in zip(logs, peeks[::2], peeks[1::2], strict=True):
            failed = [reply for reply in replies if isinstance(reply, Exception)]
            player = failed[0] if failed else self.parse_peek(log, replies)
            if player is not None:
                found[log] = player
        missing = [log for log in dict.fromkeys(logs) if log not in found]
        calls = [self.read_call(log) for log in missing]
        replies = await self._redis.run_many(calls, write=False)
        for log, reply in zip(missing, replies, strict=True):
            found[log] = reply if isinstance(reply, Exception) else parse(log, reply)
        return [found[log] for log in logs]

    async def read(self, log: Log) -> PlayerViews:
        """Read the views of a player."""
        return parse(log, await self._redis.run(*self.read_call(log), write=False))

    async def join(
        self, log: Log, audience: Log, position: Position, *, announce: bool = True
    ) -> bool:
        """
        Let a player join an audience from `position` on; return whether it had not.

        Raises:
            LimitReached: The player has `TOPICS_MAX` topics.

        """
        joined = " ".join(map(str, position))
        args = (audience.audience, joined, TOPICS_MAX, channel(log) if announce else "")
        outcome = await self._run(_JOIN, log, args)
        if outcome < 0:
            raise LimitReached(Limit.TOPICS_PER_PLAYER)
        return bool(outcome)

    async def leave(self, log: Log, audience: Log) -> bool:
        """Let a player leave, marks and all; return whether it had joined."""
        return bool(await self._run(_LEAVE, log, (audience.audience, channel(log))))

    async def mute(self, log: Log, audience: Log, *, muted: bool) -> bool:
        """Mute an audience or show it again; return whether the player has joined."""
        args = (audience.audience, int(muted), channel(log))
        return int(await self._run(_MUTE, log, args)) >= 0

    async def find_live(
        self, requests: Sequence[tuple[Log, Iterable[Position]]]
    ) -> list[LiveOffsets]:
        """Say which of these places are entries of audiences' logs, in one packet."""
        calls = []
        for audience, positions in requests:
            args: list[str | bytes | int] = [*self._settings.script_args()]
            for position in positions:
                args += [position.at_ms, position.offset, position.tag]
            calls.append(ScriptCall(_FIND, inbox_keys(audience), args))
        found = []
        for reply in await self._redis.run_many(calls, write=False):
            epoch, floor, offsets = ok(reply)
            found.append(LiveOffsets(int(epoch), int(floor), [int(o) for o in offsets]))
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
        """Mark, unmark or delete entries for a player; return the offsets changed."""
        args: list[str | int] = [audience.audience, epoch, floor, change, *offsets]
        return [int(o) for o in await self._run(_MARK, log, args)]

    async def mark_up_to(
        self, log: Log, audience: Log, offset: int, *, epoch: int, floor: int
    ) -> list[int]:
        """Mark all up to an offset for a player; return the offsets changed."""
        args = (audience.audience, epoch, floor, "upto", offset)
        return [int(o) for o in await self._run(_MARK, log, args)]

    async def acknowledge(self, log: Log, audience: Log, position: Position) -> range:
        """
        Note that a client has all of an audience up to a place that is there.

        Returns the offsets of which that was news.
        """
        args = (audience.audience, position.epoch, position.offset)
        before = await self._run(_ACKNOWLEDGE, log, args)
        return range(0) if before < 0 else range(before + 1, position.offset + 1)

    async def count(
        self, audience: Log, what: Tally, offsets: Sequence[int], *, by: int = 1
    ) -> None:
        """
        Count a player more, or less, who has done something with entries.

        In another slot than the player's mark, so not in one step with it: who dies in
        between leaves the count one too low.
        """
        keys = (tally_key(audience), inbox_keys(audience).log)
        args = (self._settings.retention_ms, what, by, *offsets)
        await self._redis.run(_TALLY, keys, args)

    async def counts(self, audience: Log, offset: int) -> tuple[int, int]:
        """Return how many players have read an entry, and how many confirmed it."""
        counts = await self._redis.call(
            "HMGET", tally_key(audience), f"read {offset}", f"acked {offset}"
        )
        read, acked = (int(count or 0) for count in counts)
        return read, acked

    async def acked_offset(self, log: Log, audience: Log, epoch: int) -> int:
        """Return up to which offset a client has confirmed an audience's entries."""
        field = f"acked {audience.audience}"
        found = await self._redis.call("HGET", views_key(log), field)
        of_epoch, _, offset = (found or b"0 0").partition(b" ")
        return int(offset) if int(of_epoch) == epoch else 0

    async def read_at_ms(
        self, log: Log, requests: Sequence[tuple[Log, Sequence[int]]]
    ) -> list[list[int]]:
        """Return when entries were marked by a player, in ms; 0 for not known."""
        calls = [
            ScriptCall(_READ_AT, (views_key(log),), (audience.audience, *offsets))
            for audience, offsets in requests
        ]
        return [ok(reply) for reply in await self._redis.run_many(calls, write=False)]

    async def _run(self, script: Script, log: Log, args: Sequence[str | int]) -> Any:
        keys = (views_key(log), inbox_keys(log)[0])
        return await self._redis.run(
            script, keys, (*self._settings.script_args(), *args)
        )


def parse(log: Log, reply: list[Any]) -> PlayerViews:
    """Return what a reply to `Views.read_call` says."""
    since_ms, found = reply
    return PlayerViews([_view(log, *fields) for fields in found], int(since_ms))


# Whoever has come since the last message to everybody has joined at the same place.
@lru_cache(maxsize=1024)
def _position(text: bytes) -> Position:
    return Position(*map(int, text.split()))


def _view(
    log: Log,
    name: bytes,
    joined: bytes,
    muted: int,
    base: int,
    done: bytes,
    deleted: bytes,
) -> View:
    return View(
        audience_log(log.app, name.decode()),
        _position(joined),
        base,
        done,
        bool(muted),
        frozenset(map(int, deleted.split())),
    )

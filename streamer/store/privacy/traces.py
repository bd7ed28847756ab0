"""
Everything in the store that names one player: how it is found, and how it is removed.

Decides, for each kind of key that `store.keys` documents, whether and where it has the
names of players. A test fails for a kind that is not decided here. Knows the forms of
the records in which names are. Knows nothing of when a player is erased.

The keys that end with the player's name are known, and are deleted by one script. The
others are found by going through all keys of the app, in packets, so other commands run
between. Every command works on the keys of one slot.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ...core.access.rights import Caller
from ...model import App, Log
from ..client.connection import Command, RedisConnection, Script
from ..client.damage import own
from ..client.replies import ok
from ..client.scanning import scan
from ..keys import KeyParts, Keys, bucket_of
from ..logs.settings import DEFAULTS, LogSettings
from ..scheduling.campaigns import SPELLED
from ..scheduling.schedule_records import ScheduleRef, parse_schedule_id

__all__ = ["NAMELESS", "OWN", "SEARCHED", "Trace", "Traces"]

VIEWS: Final = "views"

OWN: Final = (
    *("state", "log", "done", "reads", "ends", "collapse"),
    *("mutes", VIEWS, "lease", "devices", "seen"),
)
"""Kinds whose keys end with the player's name, and have nothing else before it."""

SEARCHED: Final = frozenset(
    {
        *("once", "named"),  # They end with the name, after a digest.
        *("ticket", "schedule", "to", "card", "cards"),  # The name is in the value.
    }
)
"""Kinds that are searched for a name."""

NAMELESS: Final = frozenset(
    {
        # Digests, numbers, and ids of what is found elsewhere.
        "request",
        *("revoked", "session", "due", "sending", "paused"),
        *("schedules", "sends", "slots"),
        *("quota", "rate", "tally"),
        # What an app is made of, and the texts that it sends to many.
        *("campaigns", "message", "apps", "audiences", "keys", "used", "removing"),
        # The demo's own, which ends within hours.
        "sandboxes",
        # A hash in place of the name; `Audit.forget` and `Erasures` see to the rest.
        *("audit", "pseudonyms", "erasures", "erasing"),
        *("nodes", "levels", "fence", "deployment", "rewriting"),
    }
)
"""Kinds that have no names of players, or whose names are removed by other means."""

SCAN_COUNT: Final = 1_000

_ERASE: Final = Script("player_erase", includes=("_announce",))
_ERASE_SCHEDULE: Final = Script(
    "schedule_erase", includes=("_announce", "_whole", "_inbox", "_schedule")
)
_DIGEST: Final = r"[0-9a-f]{32}:"
_decode_caller: Final = msgspec.json.Decoder(Caller).decode


class Trace(NamedTuple):
    """
    One thing that names the player, found by the search.

    `kind` is that of the key. `facts` are what it says of the player, JSON values
    without secrets. `removal` are the commands that remove it; `schedule` is the
    schedule that has to be removed instead.
    """

    kind: str
    facts: dict[str, Any]
    removal: Sequence[Command] = ()
    schedule: ScheduleRef | None = None
    campaign: str = ""


class OwnRemoved(NamedTuple):
    """How many keys were deleted, and whether the player's views were among them."""

    keys: int
    views: bool


class Traces:
    """
    The traces of players. Every method raises StoreUnavailable; those that remove
    something raise OutcomeUnknown, too, and may be repeated.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.

    """

    def __init__(
        self, redis: RedisConnection, settings: LogSettings = DEFAULTS
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._settings = settings

    async def announce_erasure(self, log: Log) -> None:
        """End the streams of a player that are open on any node."""
        await self._redis.call(
            "SPUBLISH", self._keys.channel(log), "erased", write=True
        )

    async def connections(self, log: Log) -> list[bytes]:
        """Return the leases of a player's connections, ``node:connection``."""
        found: list[bytes] = await self._redis.call("HKEYS", self._keys.lease(log))
        return found

    async def leases(self, log: Log) -> dict[str, str]:
        """Return the instance of each connection, by ``node:connection``."""
        return await self._hash(self._keys.lease(log))

    async def devices(self, log: Log) -> dict[str, tuple[str, int]]:
        """Return the device of each connection, and when it was used, in Unix ms."""
        found = {}
        for connection, text in (await self._hash(self._keys.devices(log))).items():
            device, _, used_ms = text.rpartition(" ")
            found[connection] = device, int(used_ms)
        return found

    async def last_seen_ms(self, log: Log) -> int:
        """Return when a connection of the player closed last, in Unix ms; 0: never."""
        return int(await self._redis.call("GET", self._keys.seen(log)) or 0)

    async def _hash(self, key: str) -> dict[str, str]:
        items = await self._redis.call("HGETALL", key)
        texts = [item.decode(errors="replace") for item in items]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    async def remove_own(self, log: Log) -> OwnRemoved:
        """Delete the keys of a player, in one step, and end the streams."""
        names = [self._keys.of_player(log, kind) for kind in (VIEWS, *OWN)]
        channel = self._keys.channel(log)
        keys, views = await self._redis.run(_ERASE, names, (channel,))
        return OwnRemoved(keys, bool(views))

    async def remove(self, log: Log, trace: Trace) -> None:
        """Remove what the search has found."""
        if trace.schedule is not None:
            await self._remove_schedule(log.app, trace.schedule, trace.campaign)
        for reply in await self._redis.call_many(list(trace.removal), write=True):
            ok(reply)

    async def search(self, log: Log) -> AsyncIterator[Trace]:
        """
        Yield what names a player, but for the player's own keys. O(keys of the store).

        What is stored while the search runs may be left out.
        """
        finder = _Finder(self._keys, log)
        for pattern in (
            self._keys.app_pattern(log.app),
            self._keys.every_pattern("ticket"),
        ):
            async for names in self._scan(pattern):
                found = [
                    (parts, key)
                    for key in names
                    if (parts := self._keys.split(key)) and finder.may_have(parts)
                ]
                commands = [finder.read(parts, key) for parts, key in found]
                replies = await self._redis.call_many(commands) if commands else []
                for (parts, key), reply in zip(found, replies, strict=True):
                    # A key of another type than it should be names nobody.
                    if not isinstance(own(reply), Exception):
                        for trace in finder.find(parts, key, reply):
                            yield trace

    async def names(self, app: App) -> AsyncIterator[Log]:
        """
        Yield every player of an app whom the store names, some of them repeatedly.

        For the comparison with a list of hashes. O(keys of the store, recipients of
        schedules and cards).
        """
        async for keys in self._scan(self._keys.app_pattern(app)):
            parts = [self._keys.split(key) for key in keys]
            found = [
                (it, key)
                for it, key in zip(parts, keys, strict=True)
                if it is not None and it.app == app
            ]
            values = [(it, key) for it, key in found if it.kind in _READS]
            commands = [_READS[it.kind](key) for it, key in values]
            replies = await self._redis.call_many(commands) if commands else []
            names = {it.rest for it, _ in found if it.kind in OWN}
            names |= {
                it.rest.partition(":")[2]
                for it, _ in found
                if it.kind in ("once", "named")
            }
            for (it, _), reply in zip(values, replies, strict=True):
                if not isinstance(own(reply), Exception):
                    names |= set(_names_in(it.kind, reply))
            for name in names:
                if name and not (log := Log(app, name)).is_audience:
                    yield log

    def _scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        return scan(self._redis, "MATCH", pattern, "COUNT", SCAN_COUNT)

    async def _remove_schedule(self, app: App, ref: ScheduleRef, campaign: str) -> None:
        keys = self._keys
        none = keys.no_slots(ref.bucket)
        own = campaign and bucket_of(app, campaign) == ref.bucket
        names = (
            *ref.keys(keys),
            keys.sending(ref.bucket),
            keys.slots(app, campaign) if own else none,
            keys.schedules(ref.bucket, app),
            keys.sends(app, campaign) if own else none,
            keys.paused(ref.bucket, app),
        )
        args = (*self._settings.script_args(), ref.member, ref.id)
        await self._redis.run(_ERASE_SCHEDULE, names, args)
        await self._redis.call("ZREM", keys.quota(app, "pending"), ref.id, write=True)


_READS: Final[dict[str, Callable[[bytes], Command]]] = {
    "schedule": lambda key: ("HMGET", key, "player"),
    "to": lambda key: ("LRANGE", key, 0, -1),
    "card": lambda key: ("HVALS", key),
}


def _names_in(kind: str, reply: list[Any]) -> Iterator[str]:
    """Yield the players in a value, by the reply to `_READS`."""
    for text in reply:
        if text is None or text[:1] == b"\0":
            continue
        name = text.decode()
        if kind == "card":
            name = _holder(name)[2].partition(SPELLED)[0]
        yield name


def _holder(text: str) -> tuple[str, str, str]:
    """Return status, buckets and holder of a card's record."""
    status, _, buckets, holder = (text.split(" ", 3) + [""] * 4)[:4]
    return status, buckets, holder


class _Finder:
    """What one player's name looks like in each kind of key."""

    def __init__(self, keys: Keys, log: Log) -> None:
        self._keys = keys
        self._log = log
        self._bucket = bucket_of(log.app, log.name)
        name = re.escape(log.name)
        self._ending = re.compile(rf"{_DIGEST}{name}", re.DOTALL)

    def may_have(self, parts: KeyParts) -> bool:
        """Whether a key has to be read to know whether it names the player."""
        if parts.kind == "ticket":
            return True
        if parts.app != self._log.app or parts.kind not in SEARCHED:
            return False
        if parts.kind in ("once", "named"):
            return self._ending.fullmatch(parts.rest) is not None
        if parts.kind in ("to", "cards"):
            return parts.bucket == self._bucket
        return True

    def read(self, parts: KeyParts, key: bytes) -> Command:
        """Return the command that reads what `find` needs."""
        match parts.kind:
            case "ticket":
                return ("GET", key)
            case "schedule":
                return ("HMGET", key, "player", "state", "campaign")
            case "to":
                return ("LPOS", key, self._log.name)
            case "card" | "cards":
                return ("HGETALL", key)
        return ("EXISTS", key)

    def find(self, parts: KeyParts, key: bytes, reply: Any) -> list[Trace]:
        """Return what names the player in a key, by the reply to `read`."""
        match parts.kind:
            case "ticket":
                return self._tickets(key, reply)
            case "schedule":
                return self._schedules(parts, reply)
            case "to":
                if reply is None:
                    return []
                removal = [("LREM", key, 0, self._log.name)]
                return [Trace("to", {"schedule": parts.rest}, removal)]
            case "card":
                return self._cards(parts, key, reply)
            case "cards":
                return self._copies(parts, key, reply)
        if not reply:
            return []
        return [Trace(parts.kind, {}, [("DEL", key)])]

    def _tickets(self, key: bytes, reply: bytes | None) -> list[Trace]:
        try:
            used, _, ends_ms, caller_text = (reply or b"").split(b" ", 3)
            caller = _decode_caller(caller_text)
        except ValueError:
            return []
        if (caller.app, caller.player) != self._log:
            return []
        facts = {"used": used == b"1", "token_expires_at_ms": int(ends_ms)}
        return [Trace("ticket", facts, [("DEL", key)])]

    def _schedules(self, parts: KeyParts, reply: list[Any]) -> list[Trace]:
        player, state, campaign = ((it or b"").decode() for it in reply)
        ref = parse_schedule_id(self._log.app, parts.rest)
        if player != self._log.name or ref is None or ref.bucket != parts.bucket:
            return []
        facts = {"id": ref.id, "state": state}
        return [Trace("schedule", facts, schedule=ref, campaign=campaign)]

    def _cards(self, parts: KeyParts, key: bytes, reply: list[bytes]) -> list[Trace]:
        found = []
        for card, text in zip(reply[::2], reply[1::2], strict=True):
            status, buckets, holder = _holder(text.decode())
            player, _, spelling = holder.partition(SPELLED)
            if player != self._log.name:
                continue
            facts = {"campaign": parts.rest, "card": card.decode(), "status": status}
            if spelling:
                facts["spelling"] = spelling
            removal: list[Command] = [
                ("HDEL", self._keys.cards(int(it), self._log.app, parts.rest), card)
                for it in buckets.split(",")
                if it.isdigit()
            ]
            # Last: it tells where the copies are.
            found.append(Trace("card", facts, [*removal, ("HDEL", key, card)]))
        return found

    def _copies(self, parts: KeyParts, key: bytes, reply: list[bytes]) -> list[Trace]:
        # Mostly removed with their records; one may be left by a write that failed.
        names = [
            card
            for card, text in zip(reply[::2], reply[1::2], strict=True)
            if text.split(b" ", 2)[2:] == [self._log.name.encode()]
        ]
        if not names:
            return []
        facts = {"campaign": parts.rest}
        return [Trace("cards", facts, [("HDEL", key, *names)])]

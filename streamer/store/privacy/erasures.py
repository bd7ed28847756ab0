"""
The erasures of a deployment: those that go on, and the list of those that are complete.

Decides what is kept of an erasure. While it goes on, the store has the player's name,
so that any node completes it; afterwards only the hash (`pseudonyms`). The list is
what a restored backup is compared with, because it may hold players who were erased
since. It is kept outside of the store, too: as lines of JSON, the key of the hashes
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from ...model import App, Log, Player, parse_app
from ..client.connection import RedisConnection
from .pseudonyms import Pseudonyms

__all__ = ["Erasure", "ErasureList", "Erasures", "parse_list", "print_list"]

STORED: Final = b"stored"
DONE: Final = b"done"


class Erasure(NamedTuple):
    """A complete erasure: the app, the hash of the player, and when, in Unix ms."""

    app: App
    player: str
    at_ms: int


class ErasureList(NamedTuple):
    """The erasures of a deployment, and the key of their hashes."""

    key: bytes
    erasures: Sequence[Erasure]


class _KeyLine(msgspec.Struct, frozen=True):
    key: str


class _ErasureLine(msgspec.Struct, frozen=True):
    app: str
    player: str
    at_ms: int


def print_list(listed: ErasureList) -> bytes:
    """Return a list as lines of JSON."""
    lines: list[msgspec.Struct] = [_KeyLine(listed.key.hex())]
    lines += [_ErasureLine(*erasure) for erasure in listed.erasures]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def parse_list(text: bytes) -> ErasureList:
    """
    Return the list in lines of JSON.

    Raises:
        ValueError: It is not what `print_list` returns.

    """
    first, *rest = text.splitlines() or [b""]
    key = bytes.fromhex(msgspec.json.decode(first, type=_KeyLine).key)
    if len(key) != 32:
        raise ValueError("the key of the hashes has another length")
    erasures = []
    for line in rest:
        found = msgspec.json.decode(line, type=_ErasureLine)
        app = parse_app(found.app)
        if app is None:
            raise ValueError(f"{found.app!r} is not the name of an app")
        erasures.append(Erasure(app, found.player, found.at_ms))
    return ErasureList(key, erasures)


class Erasures:
    """
    The erasures of a deployment.

    Every method raises StoreUnavailable; those that write raise OutcomeUnknown, too,
    and may be repeated.
    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._pseudonyms = Pseudonyms(redis)

    async def begin(self, log: Log) -> None:
        """Note that a player is being erased, with the name."""
        field = await self._field(log)
        await self._redis.call("HSET", self._keys.erasing, field, log.name, write=True)

    async def unfinished(self) -> list[Log]:
        """Return the players whose erasure has begun and not ended."""
        items = await self._redis.call("HGETALL", self._keys.erasing)
        found = []
        for field, name in zip(items[::2], items[1::2], strict=True):
            app = parse_app(field.decode().partition(" ")[0])
            if app is not None:
                found.append(Log(app, Player(name.decode())))
        return found

    async def complete(self, log: Log) -> None:
        """Note that the store has nothing of a player; forget the name."""
        field, now_ms = await self._field(log), await self._redis.now_ms()
        value = b"%b %d" % (STORED, now_ms)
        await self._redis.call("HSET", self._keys.erasures, field, value, write=True)
        await self._redis.call("HDEL", self._keys.erasing, field, write=True)

    async def in_files(self) -> list[tuple[bytes, bytes]]:
        """
        Return the erasures whose names the files of the store may still have.

        What `rewritten` takes.
        """
        items = await self._redis.call("HGETALL", self._keys.erasures)
        pairs = zip(items[::2], items[1::2], strict=True)
        return [(field, value) for field, value in pairs if value.startswith(STORED)]

    async def rewritten(self, erasures: Iterable[tuple[bytes, bytes]]) -> None:
        """Note that the files have nothing of these players."""
        items = [
            part
            for field, value in erasures
            for part in (field, DONE + value.removeprefix(STORED))
        ]
        if items:
            await self._redis.call("HSET", self._keys.erasures, *items, write=True)

    async def listed(self) -> ErasureList:
        """Return the list of all complete erasures, oldest first. O(n log n)."""
        items = await self._redis.call("HGETALL", self._keys.erasures)
        found = []
        for field, value in zip(items[::2], items[1::2], strict=True):
            name, _, player = field.decode().partition(" ")
            found.append(Erasure(App(name), player, int(value.split()[1])))
        found.sort(key=lambda erasure: (erasure.at_ms, erasure.player))
        return ErasureList(await self._pseudonyms.key(), found)

    async def missing(self, listed: ErasureList) -> ErasureList:
        """Return a list without what the store's own list has, as late or later."""
        # A store that has no key yet takes this one, before anything makes another.
        if not await self._pseudonyms.adopt(listed.key):
            return listed
        own = await self.listed()
        known = {(it.app, it.player): it.at_ms for it in own.erasures}
        later = [
            it for it in listed.erasures if it.at_ms > known.get((it.app, it.player), 0)
        ]
        return ErasureList(listed.key, later)

    async def adopt(self, listed: ErasureList) -> None:
        """Add the erasures of another list, if its hashes have the same key."""
        if not await self._pseudonyms.adopt(listed.key):
            return
        items = [
            part
            for app, player, at_ms in listed.erasures
            for part in (f"{app} {player}", b"%b %d" % (STORED, at_ms))
        ]
        if items:
            await self._redis.call("HSET", self._keys.erasures, *items, write=True)

    async def _field(self, log: Log) -> str:
        return f"{log.app} {await self._pseudonyms.of(log)}"

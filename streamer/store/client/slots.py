"""
Slots: which primary of a Redis Cluster has a key.

Decides which key of a command is the one that leads to its slot, and what a map of the
slots says. Knows the layout of commands and the reply to ``CLUSTER SLOTS``. Knows
nothing of connections: `cluster` has them.

A key begins with its bucket in braces, so the key is all that a call has to say about
where it belongs. A key without braces is global, and has a slot, too. A command without
a key is for any server; a cluster gives it to the primary of the deployment's nodes,
whose clock is *the* clock where one is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from .commands import Command, Packed

__all__ = [
    "SLOTS",
    "Place",
    "Redirect",
    "Shard",
    "SlotMap",
    "key_of",
    "parse_redirect",
    "parse_slots",
    "slot_of",
]

SLOTS: Final = REDIS_CLUSTER_HASH_SLOTS

# Commands that the server sends and that have no key.
_KEYLESS: Final = frozenset(
    {
        *("CLIENT", "CLUSTER", "CONFIG", "DBSIZE", "INFO", "PING", "SCAN", "TIME"),
        "WAIT",
    }
)
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})


class Place(NamedTuple):
    """Where a node of a cluster listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Shard(NamedTuple):
    """A primary and its replicas."""

    primary: Place
    replicas: tuple[Place, ...]


class SlotMap(NamedTuple):
    """
    Who has which slots.

    Args:
        shards: The primaries that have slots, by place.
        owners: The primary of each slot; None for one that nobody has.

    """

    shards: Mapping[Place, Shard]
    owners: Sequence[Place | None]

    @property
    def uncovered(self) -> int:
        """The number of slots that no primary has."""
        return sum(owner is None for owner in self.owners)

    def moved(self, slot: int, place: Place) -> SlotMap:
        """Return the map after one slot has moved."""
        owners = list(self.owners)
        owners[slot] = place
        shards = dict(self.shards)
        shards.setdefault(place, Shard(place, ()))
        return SlotMap(shards, owners)


class Redirect(NamedTuple):
    """
    What an error reply of a cluster says of a slot. Nothing was done.

    Args:
        kind: ``MOVED``: it is elsewhere from now on. ``ASK``: this key is, while the
            slot moves. ``TRYAGAIN``: the keys are in two places, while the slot moves,
            or it does not say where the slot is.
        slot: Which one, -1 if it does not say.
        place: Where to; None for ``TRYAGAIN``.

    """

    kind: str
    slot: int
    place: Place | None


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key or a sharded channel."""
    raw = key if isinstance(key, bytes) else key.encode()
    start = raw.find(b"{")
    end = raw.find(b"}", start + 1) if start >= 0 else -1
    return _slot_of_tag(raw[start + 1 : end] if end > start + 1 else raw)


@lru_cache(maxsize=1_024)
def _slot_of_tag(tag: bytes) -> int:
    return int(key_slot(tag))


def key_of(command: Command | Packed) -> str | bytes | None:
    """Return the first key of a command, None if it has none."""
    if isinstance(command, Packed):
        command = _head(command)
    name = command[0]
    if isinstance(name, bytes):
        name = name.decode()
    if name in _SCRIPTS:
        key = command[3] if int(command[2]) else None
    elif name in _KEYLESS or len(command) < 2:
        return None
    else:
        key = command[2 if name == "XINFO" else 1]
    return str(key) if isinstance(key, int) else key


def _head(packed: Packed) -> Command:
    """Return the first four arguments of a command in RESP."""
    start = packed.index(b"\r\n")
    count = min(4, int(packed[1:start]))
    start += 2
    args = []
    for _ in range(count):
        end = packed.index(b"\r\n", start)
        length = int(packed[start + 1 : end])
        start = end + 2
        args.append(packed[start : start + length])
        start += length + 2
    return tuple(args)


def parse_redirect(text: str, asked: str) -> Redirect | None:
    """
    Return what an error reply says of its slot, None if it says nothing of that.

    Args:
        text: The error reply.
        asked: The host that replied, which may leave its own name out.

    """
    kind, _, rest = text.partition(" ")
    if kind == "TRYAGAIN":
        return Redirect(kind, -1, None)
    if kind not in ("MOVED", "ASK"):
        return None
    slot, _, address = rest.partition(" ")
    host, _, port = address.rpartition(":")
    if not (slot.isdigit() and port.isdigit()) or int(slot) >= SLOTS:
        return Redirect("TRYAGAIN", -1, None)
    if host == "?":
        return Redirect("TRYAGAIN", int(slot), None)
    return Redirect(kind, int(slot), Place(host.strip("[]") or asked, int(port)))


def parse_slots(reply: Iterable[Any], asked: str) -> SlotMap:
    """
    Return the map in the reply to ``CLUSTER SLOTS``.

    Args:
        reply: The reply.
        asked: The host that replied, which may leave its own name out.

    Raises:
        ValueError: It is no such reply.

    """
    owners: list[Place | None] = [None] * SLOTS
    replicas: dict[Place, set[Place]] = {}
    try:
        for first, last, primary, *others in reply:
            place = _place(primary, asked)
            if place is None:
                continue
            owners[first : last + 1] = [place] * (last + 1 - first)
            found = (_place(other, asked) for other in others)
            replicas.setdefault(place, set()).update(it for it in found if it)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError("not a map of slots") from error
    if len(owners) != SLOTS:
        raise ValueError("not a map of slots")
    shards = {it: Shard(it, tuple(sorted(replicas[it]))) for it in replicas}
    return SlotMap(shards, owners)


def _place(node: Sequence[Any], asked: str) -> Place | None:
    host = (node[0] or b"").decode()
    # A node whose own address is not known yet calls itself "?".
    return None if host == "?" else Place(host or asked, int(node[1]))

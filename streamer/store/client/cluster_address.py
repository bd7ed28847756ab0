"""
Where the primaries of a Redis Cluster are: the map of its slots.

Decides whom to ask for the map, when, and which answer counts. Knows two commands of a
cluster's nodes. Knows nothing of who uses the map: all connections of a process to one
cluster share it.

The map is read when it is first needed, after every sign that it is out of date (a
redirect, a primary that is away or takes no writes), at most every `BACK_OFF_S`, and by
whoever asks for one that is not older than some time. A node that is cut off from the
others knows an old map, and says so by ``cluster_state`` or by its epoch, so an answer
with an older epoch than the known one counts only if nobody has a newer.

redis-py can discover a cluster, and is not used for that: its `NodesManager` opens
connections of its own to every node, one after the other and without a bound in all,
and repeats commands on them. The map is the reply to one command, which goes over the
same kind of connection as all others. The slot of a key is redis-py's `key_slot`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Final

from redis.exceptions import RedisError

from ...errors import StoreUnavailable
from ...store_url import ClusterUrl, StoreUrl
from .address import FixedAddress
from .asking import ANSWER_TIMEOUT_S, answers_of
from .connection import BackOff, RedisConnection
from .slots import Place, SlotMap, parse_slots

__all__ = ["NO_CLUSTER", "ClusterAddress"]

BACK_OFF_S: Final = (0.05, 1.0)
"""The first and the longest wait between two readings of the map, while it is bad."""

NO_CLUSTER: Final = "is not a node of a cluster: use redis:// for a single server"

_DISABLED: Final = "cluster support disabled"


class ClusterAddress:
    """
    The address of a cluster, which has the map of its slots.

    Args:
        url: The nodes to ask first, with the credentials of all.

    """

    def __init__(self, url: ClusterUrl) -> None:
        self._url = url
        self._map: SlotMap | None = None
        self._epoch = 0
        self._turn = -1
        self._read_at_s = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._back_off = BackOff(*BACK_OFF_S)
        self._watchers: list[Callable[[], None]] = []
        self.words = ""
        """Why the map could not be read the last time."""

    @property
    def where(self) -> str:
        return self._url.place

    @property
    def database(self) -> int:
        return self._url.database

    async def locate(self) -> StoreUrl:
        """Return the URL of some primary. Raises StoreUnavailable."""
        for place in (await self.slots()).shards:
            return self._at(place)
        raise self._unavailable()

    def address_of(self, place: Place) -> FixedAddress:
        """Return the address of a node."""
        return FixedAddress(self._at(place))

    @property
    def map(self) -> SlotMap | None:
        """The map that was read last, None before the first one."""
        return self._map

    async def slots(self) -> SlotMap:
        """
        Return the map. If none has been read yet, read it first.

        Raises:
            StoreUnavailable: No node has one. It has the answer of each.

        """
        if self._map is None:
            await self.refresh()
        if self._map is None:
            raise self._unavailable()
        return self._map

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever the map has changed. It must not raise."""
        self._watchers.append(changed)

    def note_moved(self, slot: int, place: Place) -> None:
        """Correct one slot by the word of its former owner, and read the map soon."""
        if self._map is not None and self._map.owners[slot] != place:
            self._set(self._map.moved(slot, place))
        self.suspect()

    def suspect(self) -> None:
        """Read the map soon: something is not where it says."""
        self._begin()

    def refresh_after(self, age_s: float) -> None:
        """Read the map soon if the last time is `age_s` ago."""
        if monotonic() - self._read_at_s >= age_s:
            self._begin()

    async def refresh(self) -> None:
        """Read the map, unless that was done a moment ago. Never fails."""
        self._begin()
        if self._refreshing is not None:
            # Shared, so that cancelling one caller does not cancel it for the others.
            await asyncio.wait([self._refreshing])

    async def close(self) -> None:
        """End a reading of the map that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _begin(self) -> None:
        # One that is cancelled before it begins does not tell of its end.
        is_reading = self._refreshing is not None and not self._refreshing.done()
        if not is_reading and not self._back_off.is_waiting:
            self._back_off.wait()
            self._refreshing = asyncio.create_task(self._read(), name="slot map")

    async def _read(self) -> None:
        try:
            found = await self._first_answer()
        finally:
            self._refreshing = None
        if found is not None:
            self._epoch, map_ = found
            self._read_at_s = monotonic()
            self._set(map_)

    def _set(self, map_: SlotMap) -> None:
        if map_ == self._map:
            return
        self._map = map_
        for changed in self._watchers:
            changed()

    async def _first_answer(self) -> tuple[int, SlotMap] | None:
        """Return the first map of the known epoch or a newer one, else the newest."""
        failures: list[str] = []
        found: list[tuple[bool, int, SlotMap]] = []
        async with aclosing(answers_of(self._nodes(), self._ask, failures)) as answers:
            async for some in answers:
                found = sorted(found + some, key=lambda answer: answer[:2])
                if found and found[-1][0] and found[-1][1] >= self._epoch:
                    break
        self.words = "; ".join(failures)
        return found[-1][1:] if found else None

    def _nodes(self) -> list[StoreUrl]:
        """
        Return all nodes that are known, each time beginning with another one.

        The names in the URL come last, or alone while no node is known. A node that
        leaves its own name out gives all nodes the name by which it was asked, so
        another name would make another map of the same cluster.
        """
        places: dict[Place, None] = {}
        for shard in (self._map.shards if self._map else {}).values():
            places |= dict.fromkeys((shard.primary, *shard.replicas))
        nodes = [self._at(place) for place in places]
        seeds = [Place(seed.host, seed.port) for seed in self._url.seeds]
        others = [self._at(place) for place in seeds if place not in places]
        if not nodes:
            nodes, others = others, []
        self._turn = (self._turn + 1) % len(nodes)
        return nodes[self._turn :] + nodes[: self._turn] + others

    async def _ask(self, node: StoreUrl) -> tuple[bool, int, SlotMap]:
        """
        Return whether a node is well and knows all others, its epoch, and its map.

        Raises:
            StoreUnavailable: It does not answer, or has no map.

        """
        redis = RedisConnection(
            FixedAddress(node), name="streamer-slots", timeout_s=ANSWER_TIMEOUT_S
        )
        try:
            info, slots = await redis.call_many(
                [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")]
            )
        finally:
            await redis.close()
        if isinstance(slots, RedisError):
            words = str(slots)
            raise StoreUnavailable(NO_CLUSTER if _DISABLED in words else words)
        if isinstance(slots, Exception):
            raise slots
        fields = dict[str, str]()
        if isinstance(info, bytes):
            lines = info.decode(errors="replace").splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
        try:
            map_ = parse_slots(slots, node.host)
        except ValueError as error:
            raise StoreUnavailable("answers as no node of a cluster does") from error
        if not map_.shards:
            raise StoreUnavailable("knows no primary with slots")
        epoch = fields.get("cluster_current_epoch", "")
        is_well = fields.get("cluster_state", "ok") == "ok"
        # One that has not met all the others yet does not know where they are.
        is_well = is_well and not any(primary[0] == b"?" for _, _, primary, *_ in slots)
        return is_well, int(epoch) if epoch.isdigit() else 0, map_

    def _at(self, place: Place) -> StoreUrl:
        return self._url.store._replace(host=place.host, port=place.port)

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(
            self.words or "no node has answered yet", where=self.where
        )

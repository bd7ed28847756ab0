"""
Presence: which players have open connections, and when the others were last seen.

Decides how leases, heartbeats and the times of released leases are read together. Knows
the keys. Knows nothing of rights.

A player is online while a node that is alive holds a lease for one of the player's
connections. A node that was killed counts as alive for up to `ALIVE_MS`, and its
players as online. Afterwards they were last seen at its last heartbeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...model import Log
from ..client.connection import RedisConnection
from ..client.damage import own
from .leases import ALIVE_MS, node_beats

__all__ = ["Sighting", "Sightings"]

PORTION: Final = 250
"""Players that are read in one packet."""

PART: Final = "presence"
"""The name of this part in `StoreFaults`."""


class Sighting(NamedTuple):
    """
    What is known of a player's presence.

    `connections` is the number of leases of live nodes, waiting polls included.
    `seen_ms` is when the last connection closed, Unix ms: 0 if there is one open, or if
    it was more than `leases.SEEN_MS` ago, or never.
    """

    connections: int
    seen_ms: int

    @property
    def is_online(self) -> bool:
        return self.connections > 0


class Sightings:
    """
    The presence of all players of the store.

    Args:
        redis: The connection to the store.

    """

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._keys = redis.keys

    async def of_many(self, logs: Sequence[Log]) -> list[Sighting]:
        """
        Return what is known of players, in order. O(leases).

        A player whose keys are damaged counts as never seen. Raises StoreUnavailable.
        """
        sightings: list[Sighting] = []
        for first in range(0, len(logs), PORTION):
            portion = logs[first : first + PORTION]
            # With each portion: a node may be gone by the time of the last one.
            beats = await node_beats(self._redis)
            commands = [
                command
                for log in portion
                for command in (
                    ("HKEYS", self._keys.lease(log)),
                    ("GET", self._keys.seen(log)),
                )
            ]
            replies = await self._redis.call_many(commands)
            for i, log in enumerate(portion):
                leases, seen = replies[2 * i : 2 * i + 2]
                if isinstance(own(leases), Exception):
                    self._redis.damage.note(PART, self._keys.lease(log), leases)
                    leases = []
                if isinstance(own(seen), Exception):
                    self._redis.damage.note(PART, self._keys.seen(log), seen)
                    seen = None
                sightings.append(_sighting(leases, seen, beats.ages_ms, beats.now_ms))
        return sightings


def _sighting(
    leases: Sequence[bytes], seen: Any, ages_ms: dict[bytes, int], now_ms: int
) -> Sighting:
    connections, seen_ms = 0, int(seen) if seen and seen.isdigit() else 0
    for lease in leases:
        age_ms = ages_ms.get(lease.partition(b":")[0])
        if age_ms is None:
            continue  # Its node has been gone for an hour, or has left properly.
        if age_ms <= ALIVE_MS:
            connections += 1
        else:
            seen_ms = max(seen_ms, now_ms - age_ms)
    return Sighting(connections, 0 if connections else seen_ms)

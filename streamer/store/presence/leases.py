"""
Leases: how many listeners a player has, across all nodes.

Decides whether one more may listen. Knows the scripts and the heartbeats under which
leases stand. Knows nothing of connections but a name for each.

A lease is void when the heartbeat of its node is: the slots of a node that died come
back within 20 s without anybody doing anything. The list of live nodes is an
argument of the script, because it lives in another slot than the player's keys.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from ...errors import Limit, LimitReached, OutcomeUnknown, StoreUnavailable, Unavailable
from ...model import Log, new_name
from ..client.commands import Command, Packed
from ..client.connection import RedisConnection, Reply, Script, ScriptCall
from ..client.replies import ok
from ..keys import NODES, channel, inbox_keys, lease_key, views_key

__all__ = ["Lease", "Leases", "Newcomer", "alive_nodes"]

HEARTBEAT_S: Final = 5.0
ALIVE_MS: Final = 15_000
"""Three missed heartbeats. Other nodes hear of it with their next one, so a dead node's
leases count for up to 20 s."""

REMEMBERED_MS: Final = 3_600_000
LEASE_MS: Final = 25 * 3_600_000
RENEW_S: Final = 12 * 3_600.0
"""Twice in the lifetime of the key: a stream may last as long as its tokens come."""

RETRY_AFTER_S: Final = 5
RELEASE_BATCH: Final = 512

# What the script answers, besides 0.
ACQUIRED: Final = 1
STALE_NODES: Final = -1

_ACQUIRE = Script("lease_acquire")
_HEARTBEAT = Script("heartbeat")

_logger = logging.getLogger(__name__)


async def alive_nodes(redis: RedisConnection) -> list[bytes]:
    """
    Return the nodes whose leases hold, by the store's clock. Raises StoreUnavailable.
    """
    time_, beats = await redis.call_many(
        [("TIME",), ("ZRANGE", NODES, 0, -1, "WITHSCORES")]
    )
    for reply in (time_, beats):
        ok(reply)
    since_ms = int(time_[0]) * 1000 + int(time_[1]) // 1000 - ALIVE_MS
    pairs = zip(beats[::2], beats[1::2], strict=True)
    return [node for node, beat_ms in pairs if int(beat_ms) >= since_ms]


class Newcomer(NamedTuple):
    """Where a player that was never seen begins to be one of everybody."""

    everyone: str
    position: str
    lifetime_ms: int


_UNKNOWN: Final = Newcomer("", "", 0)


class Lease(NamedTuple):
    """One listener's place among its player's."""

    log: Log
    connection: str


class Leases:
    """
    This node's leases.

    Args:
        redis: The way to the store.
        leases_max: Listeners per player.
        monotonic: Seconds by which an absence is measured.

    """

    def __init__(
        self,
        redis: RedisConnection,
        *,
        leases_max: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._monotonic = monotonic
        self._leases_max = leases_max
        self.node = new_name()
        self._alive: list[bytes] = []
        self._held: dict[Lease, str] = {}
        self._to_release: set[Lease] = set()
        self._releasing: asyncio.Task[None] | None = None
        self._beaten_at_s = self._renewed_at_s = self._monotonic()

    @staticmethod
    def new_connection() -> str:
        """Return a name for a connection, unique across nodes."""
        return new_name()

    async def acquire(
        self,
        log: Log,
        connection: str,
        *,
        instance: str = "",
        newcomer: Newcomer | None = None,
        commands: Sequence[Packed] = (),
    ) -> tuple[Lease, list[Reply]]:
        """
        Take a lease for a connection, and run commands behind that in the same packet.

        Args:
            log: The player's.
            connection: What the lease is called.
            instance: A client that names its own, a random one, gets back the lease
                its last connection holds, and that connection is told to end.
            newcomer: What becomes of a player that was never seen, if that is known.
            commands: They write nothing; their replies come with the lease, exceptions
                among them.

        Raises:
            LimitReached: The player has all the listeners it may have.
            StoreUnavailable: No lease was taken, as far as anybody will notice.

        """
        lease = Lease(log, connection)
        acquire = partial(self._acquire, lease, instance, newcomer, commands)
        try:
            outcome, replies = await acquire(fresh=not self._alive)
            if outcome == STALE_NODES:
                outcome, replies = await acquire(fresh=True)
        except (OutcomeUnknown, asyncio.CancelledError) as error:
            # It may have been taken; nobody is going to use it.
            self._to_release.add(lease)
            if isinstance(error, OutcomeUnknown):
                raise StoreUnavailable from error
            raise
        if outcome != ACQUIRED:
            raise LimitReached(Limit.LISTENERS_PER_PLAYER, retry_after_s=RETRY_AFTER_S)
        self._held[lease] = instance
        return lease, replies

    async def _acquire(
        self,
        lease: Lease,
        instance: str,
        newcomer: Newcomer | None,
        commands: Sequence[Packed],
        *,
        fresh: bool,
    ) -> tuple[int, list[Reply]]:
        if fresh:
            await self.beat()
        log = lease.log
        call = ScriptCall(
            _ACQUIRE,
            (lease_key(log), views_key(log), *inbox_keys(log)[:2]),
            (
                self._leases_max,
                LEASE_MS,
                channel(log),
                self.node,
                lease.connection,
                instance,
                *(newcomer or _UNKNOWN),
                int(fresh),
                *self._alive,
            ),
        )
        outcome, *replies = await self._redis.run_many([call], after=commands)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, replies

    async def release(self, lease: Lease) -> None:
        """Give a lease back. Never fails: what cannot be said is said later."""
        self.release_soon(lease)
        assert self._releasing is not None
        await asyncio.shield(self._releasing)

    def release_soon(self, lease: Lease) -> None:
        """Release a lease as soon as possible; `release` waits for it."""
        self._held.pop(lease, None)
        self._to_release.add(lease)
        # Shared: when thousands leave at once, each would else say it for all others.
        if self._releasing is None:
            self._releasing = asyncio.create_task(self._release_now(), name="leases")

    async def wait_released(self) -> None:
        """Wait until what `release_soon` was given is released, or the store fails."""
        if self._releasing is not None:
            await asyncio.wait([self._releasing])

    async def _release_now(self) -> None:
        try:
            await self._release_all()
        except Unavailable:
            _logger.info("leases wait to be given back: the store is away")
        finally:
            self._releasing = None

    async def run(self) -> None:
        """Keep the heartbeat; runs until cancelled."""
        while True:
            try:
                await self.beat()
                await self._release_all()
                await self._renew_if_due()
            except Unavailable:
                _logger.debug("no heartbeat: the store is away")
            await asyncio.sleep(HEARTBEAT_S)

    async def beat(self) -> None:
        """Say that this node is alive; learn who else is. Raises Unavailable."""
        if self._monotonic() - self._beaten_at_s > ALIVE_MS / 1000:
            # Others may have taken this node for dead, and its leases for void.
            self._renewed_at_s = float("-inf")
        self._alive = await self._redis.run(
            _HEARTBEAT, (NODES,), (self.node, ALIVE_MS, REMEMBERED_MS)
        )
        self._beaten_at_s = self._monotonic()

    async def leave(self) -> None:
        """End the heartbeat, and with it every lease of this node."""
        try:
            await self._redis.call("ZREM", NODES, self.node, write=True)
        except Unavailable:
            _logger.info("the node's leases end by themselves: the store is away")

    async def _renew_if_due(self) -> None:
        """Write down again what is held, after an absence or a long time."""
        now_s = self._monotonic()
        if now_s - self._renewed_at_s < RENEW_S:
            return
        commands: list[Command] = []
        for (log, connection), instance in self._held.items():
            key, member = lease_key(log), f"{self.node}:{connection}"
            commands += [("HSET", key, member, instance), ("PEXPIRE", key, LEASE_MS)]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)
        self._renewed_at_s = now_s

    async def _release_all(self) -> None:
        """Give back what is to be given back, also what comes in meanwhile."""
        while leases := tuple(self._to_release):
            for first in range(0, len(leases), RELEASE_BATCH):
                await self._release_batch(leases[first : first + RELEASE_BATCH])

    async def _release_batch(self, leases: Sequence[Lease]) -> None:
        replies = await self._redis.call_many(
            [
                ("HDEL", lease_key(lease.log), f"{self.node}:{lease.connection}")
                for lease in leases
            ],
            write=True,
        )
        for lease, reply in zip(leases, replies, strict=True):
            ok(reply)
            self._to_release.discard(lease)

"""
Leases: the open connections of a player, on all nodes.

Decides whether a player may open one more connection. Knows the scripts, and the
heartbeats of nodes. Knows nothing of a connection but its name.

A lease is void when its node has no heartbeat, so the leases of a crashed node are
freed within 20 s, without any cleanup. The list of live nodes is an argument of the
script, because it is in another slot than the player's keys.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from ...core.deployment import LEVEL
from ...errors import (
    Limit,
    LimitReached,
    OutcomeUnknown,
    StoreUnavailable,
    Unavailable,
)
from ...model import Log, new_name
from ..client.commands import Packed
from ..client.connection import RedisConnection, Reply, Script, ScriptCall
from ..client.damage import own
from ..client.faults import STORE_FAILURES, StoreFaults
from ..client.replies import ok

__all__ = [
    "ALIVE_MS",
    "Lease",
    "Leases",
    "Newcomer",
    "NodeBeats",
    "alive_nodes",
    "node_beats",
]

HEARTBEAT_S: Final = 5.0
RETRY_S: Final = 1.0
"""The time between attempts while heartbeats fail."""

ALIVE_MS: Final = 15_000
"""Three missed heartbeats. Other nodes learn of it with their next one, so the leases
of a crashed node count for up to 20 s."""

REMEMBERED_MS: Final = 3_600_000
LEASE_MS: Final = 25 * 3_600_000
RENEW_S: Final = 12 * 3_600.0
"""Twice per lifetime of the key, which streams may outlive."""

SEEN_MS: Final = 30 * 86_400_000
"""How long it is known when a player's last connection closed."""

RETRY_AFTER_S: Final = 5
BATCH: Final = 100
"""Leases released or renewed in one packet, which is written in one turn."""

# Replies of the script, besides 0: all leases are taken.
ACQUIRED: Final = 1
STALE_NODES: Final = -1

PART: Final = "heartbeat"
"""The name of this part in `StoreFaults`."""

_ACQUIRE = Script("lease_acquire", includes=("_announce", "_whole"))
_RENEW = Script("lease_renew")
_RELEASE = Script("lease_release", includes=("_whole",))
_HEARTBEAT = Script("heartbeat")

_logger = logging.getLogger(__name__)


class NodeBeats(NamedTuple):
    """
    The nodes that had a heartbeat within the last hour.

    `ages_ms` is how long ago the last one was, at the store's time `now_ms`.
    """

    now_ms: int
    ages_ms: dict[bytes, int]

    @property
    def alive(self) -> list[bytes]:
        """The nodes that count as alive."""
        return [node for node, age_ms in self.ages_ms.items() if age_ms <= ALIVE_MS]


async def node_beats(redis: RedisConnection) -> NodeBeats:
    """
    Return the heartbeats of nodes, by the store's clock; none if their key is damaged.

    Raises StoreUnavailable.
    """
    time_, beats = await redis.call_many(
        [("TIME",), ("ZRANGE", redis.keys.nodes, 0, -1, "WITHSCORES")]
    )
    ok(time_)
    now_ms = int(time_[0]) * 1000 + int(time_[1]) // 1000
    if isinstance(own(beats), Exception):
        redis.damage.note(PART, redis.keys.nodes, beats)
        return NodeBeats(now_ms, {})
    pairs = zip(beats[::2], beats[1::2], strict=True)
    return NodeBeats(now_ms, {node: now_ms - int(float(beat)) for node, beat in pairs})


async def alive_nodes(redis: RedisConnection) -> list[bytes]:
    """Return the live nodes; see `node_beats`."""
    return (await node_beats(redis)).alive


class Newcomer(NamedTuple):
    """How a player that was never seen joins everyone's log: its first view."""

    everyone: str
    position: str
    lifetime_ms: int


_UNKNOWN: Final = Newcomer("", "", 0)


class Lease(NamedTuple):
    """The slot of one connection of a player."""

    log: Log
    connection: str


class Leases:
    """
    The leases of this node.

    Args:
        redis: The connection to the store.
        leases_max: Open connections per player.
        monotonic: Clock in seconds that measures how long heartbeats were missing.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        redis: RedisConnection,
        *,
        leases_max: int,
        monotonic: Callable[[], float] = time.monotonic,
        faults: StoreFaults | None = None,
    ) -> None:
        self._redis = redis
        self._faults = faults or StoreFaults()
        self._keys = redis.keys
        self._monotonic = monotonic
        self._leases_max = leases_max
        self.node = new_name()
        self._alive: list[bytes] = []
        self._held: dict[Lease, str] = {}
        self._to_release: dict[Lease, None] = {}
        """Leases whose release was not tried yet."""
        self._unreleased: dict[Lease, None] = {}
        """Leases that could not be released: their part of the store is away."""
        self._to_renew: dict[Lease, None] = {}
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
        Acquire a lease for a connection, and run commands in the same packet.

        Args:
            log: The player's log.
            connection: Name of the connection.
            instance: A random name that a client chooses for itself. The client takes
                over the lease of its previous connection, which is closed.
            newcomer: The first view of a player that was never seen, if it is known.
            commands: Commands that only read. Their replies are returned with the
                lease; failures are exceptions in the list.

        Raises:
            LimitReached: The player has `leases_max` connections.
            StoreUnavailable: No lease was acquired, or it will be released.

        """
        lease = Lease(log, connection)
        try:
            for is_fresh in (not self._alive, True):
                if is_fresh:
                    await self.beat()
                call = self._acquire_call(lease, instance, newcomer, is_fresh=is_fresh)
                outcome, *replies = await self._redis.run_many([call], after=commands)
                if isinstance(outcome, Exception):
                    raise outcome
                if outcome != STALE_NODES:
                    break
        except (OutcomeUnknown, asyncio.CancelledError) as error:
            # It may have been acquired, and is not going to be used.
            self._to_release[lease] = None
            if isinstance(error, OutcomeUnknown):
                raise StoreUnavailable from error
            raise
        if outcome != ACQUIRED:
            raise LimitReached(Limit.LISTENERS_PER_PLAYER, retry_after_s=RETRY_AFTER_S)
        self._held[lease] = instance
        return lease, replies

    def _acquire_call(
        self, lease: Lease, instance: str, newcomer: Newcomer | None, *, is_fresh: bool
    ) -> ScriptCall:
        log, keys = lease.log, self._keys
        state, entries, _ = keys.audience(log)
        return ScriptCall(
            _ACQUIRE,
            (keys.lease(log), keys.views(log), state, entries),
            (
                self._leases_max,
                LEASE_MS,
                keys.channel(log),
                self.node,
                lease.connection,
                instance,
                *(newcomer or _UNKNOWN),
                int(is_fresh),
                *self._alive,
            ),
        )

    async def release(self, lease: Lease) -> None:
        """Release a lease. Never fails: if the store is unreachable, retries later."""
        self.release_soon(lease)
        assert self._releasing is not None
        await asyncio.shield(self._releasing)

    def release_soon(self, lease: Lease) -> None:
        """Release a lease as soon as possible; `release` waits for it."""
        self._held.pop(lease, None)
        self._to_release[lease] = None
        # Shared: when thousands of streams close at once, each would release them all.
        if self._releasing is None:
            self._releasing = asyncio.create_task(self._release_now(), name="leases")

    async def wait_released(self) -> None:
        """Wait until what `release_soon` was given is released, or the store fails."""
        if self._releasing is not None:
            await asyncio.wait([self._releasing])

    async def _release_now(self) -> None:
        try:
            await self._release_all()
        except STORE_FAILURES as error:
            _logger.info("could not release leases yet: %s", error)
        finally:
            self._releasing = None

    async def run(self) -> None:
        """Send heartbeats; runs until cancelled."""
        attempts = self._faults.attempts(PART, wait_s=(RETRY_S, RETRY_S))
        while True:
            async with attempts:
                await self._write_due()
            if not attempts.failing:
                await asyncio.sleep(HEARTBEAT_S)

    async def _write_due(self) -> None:
        """
        Send a heartbeat, and release and renew the leases that are due.

        Raises Unavailable if some could not be written, after all others were.
        """
        await self.beat()
        failure: Unavailable | None = None
        for step in (self._release_all, self._renew_if_due):
            try:
                await step()
            except Unavailable as error:
                # On a cluster, of some leases: their part is away.
                failure = failure or error
        if failure is not None:
            raise failure

    async def beat(self) -> None:
        """Send a heartbeat, and read which nodes are alive. Raises Unavailable."""
        if self._monotonic() - self._beaten_at_s > ALIVE_MS / 1000:
            # Other nodes may have deleted the leases of this one as void.
            self._renewed_at_s = float("-inf")
        self._alive = await self._redis.run(
            _HEARTBEAT,
            (self._keys.nodes, self._keys.node_levels),
            (self.node, ALIVE_MS, REMEMBERED_MS, LEVEL),
        )
        self._beaten_at_s = self._monotonic()

    async def leave(self) -> None:
        """End the heartbeat, which voids every lease of this node."""
        try:
            commands = [
                ("ZREM", self._keys.nodes, self.node),
                ("HDEL", self._keys.node_levels, self.node),
            ]
            for reply in await self._redis.call_many(commands, write=True):
                ok(reply)
        except STORE_FAILURES as error:
            _logger.info("could not release leases, which expire in 20 s: %s", error)

    async def _renew_if_due(self) -> None:
        """Write all leases again, after missing heartbeats or a long time."""
        now_s = self._monotonic()
        if now_s - self._renewed_at_s >= RENEW_S:
            self._to_renew = dict.fromkeys(self._held)
            self._renewed_at_s = now_s
        if failure := await self._work_off(self._to_renew, self._renew_batch):
            raise failure

    async def _renew_batch(self, leases: Sequence[Lease]) -> Unavailable | None:
        """Renew leases; return why some were not, because their part is away."""
        # A packet takes seconds while a part of the store does not answer.
        if self._monotonic() - self._beaten_at_s >= HEARTBEAT_S:
            await self.beat()
        held = [(it, self._held[it]) for it in leases if it in self._held]
        calls = [
            ScriptCall(
                _RENEW,
                (self._keys.lease(lease.log),),
                (f"{self.node}:{lease.connection}", instance, LEASE_MS),
            )
            for lease, instance in held
        ]
        replies = await self._run_each(calls)
        failure: Unavailable | None = None
        waiting = set()
        for (lease, _), reply in zip(held, replies, strict=True):
            if isinstance(reply, Unavailable):
                failure = reply
                waiting.add(lease)
                continue
            # A damaged key of one player must not keep the leases of others from being
            # renewed, nor be the reason to renew all of them again.
            self._note_refusal(lease, reply)
        for lease in leases:
            if lease not in waiting:
                self._to_renew.pop(lease, None)
        return failure

    async def _release_all(self) -> None:
        """
        Release all leases that are due, also those that are added meanwhile.

        Raises Unavailable if some could not be released, after all others were.
        """
        failure: Unavailable | None = None
        while leases := tuple(islice(self._to_release, BATCH)):
            for lease in leases:
                self._unreleased[lease] = self._to_release.pop(lease)
            failure = await self._release_batch(leases) or failure
            if all(lease in self._unreleased for lease in leases):
                break
        failure = await self._work_off(self._unreleased, self._release_batch) or failure
        if failure is not None:
            raise failure

    async def _release_batch(self, leases: Sequence[Lease]) -> Unavailable | None:
        """Release leases; return why some were not, because their part is away."""
        calls = [
            ScriptCall(
                _RELEASE,
                (self._keys.lease(lease.log), self._keys.seen(lease.log)),
                (f"{self.node}:{lease.connection}", SEEN_MS),
            )
            for lease in leases
        ]
        failure: Unavailable | None = None
        replies = await self._run_each(calls)
        for lease, reply in zip(leases, replies, strict=True):
            if isinstance(reply, Unavailable):
                failure = failure or reply
                continue
            # One whose key is damaged is void: nobody can acquire another there.
            self._note_refusal(lease, reply)
            self._unreleased.pop(lease, None)
        return failure

    async def _work_off(
        self,
        due: dict[Lease, None],
        write: Callable[[Sequence[Lease]], Awaitable[Unavailable | None]],
    ) -> Unavailable | None:
        """
        Write leases in packets, until nothing of a packet could be written.

        `write` writes a packet and removes from `due` what was written. Returns why
        some were not: their part of the store is away. The next call begins with
        others.
        """
        failure: Unavailable | None = None
        waiting = tuple(due)
        for first in range(0, len(waiting), BATCH):
            batch = waiting[first : first + BATCH]
            failure = await write(batch) or failure
            left = [lease for lease in batch if lease in due]
            for lease in left:
                due[lease] = due.pop(lease)
            if len(left) == len(batch):
                break
        return failure

    async def _run_each(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        """Run scripts as `run_many`; one that was not sent is a failure in the list."""
        try:
            return await self._redis.run_many(calls)
        except StoreUnavailable as error:
            return [error] * len(calls)

    def _note_refusal(self, lease: Lease, reply: Reply) -> None:
        if isinstance(own(reply), Exception):
            self._redis.damage.note(PART, self._keys.lease(lease.log), reply)

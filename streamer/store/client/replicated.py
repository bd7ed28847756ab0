"""
Writes that replicas confirm before they are acknowledged.

Decides when to ask the replicas, and what too few confirmations mean. Knows ``WAIT``.
Knows nothing of the content of writes.

``WAIT`` delays all later replies on its connection, so these writes have a connection
of their own. They share it in batches: while one ``WAIT`` is pending, further writes
collect, and the next packet takes all of them with a single ``WAIT``::

    packet 1:  script script fence WAIT
    packet 2:                            script script script fence WAIT

``WAIT`` waits for what was *written* on its own connection. A repeated publish writes
nothing: it finds its record and returns that. Such a connection has nothing to wait
for, and Valkey 9.1 reports at once that all replicas are up to date, while the original
publish, sent by another node, may only be on the primary. So each ``WAIT`` follows a
write, the fence: a replica that has the fence has everything before it.

Each primary of a cluster has replicas of its own, so each has packets of its own, with
a fence in one of its slots. A script whose slot is elsewhere was not executed, and goes
into a packet of the primary that has the slot. The fence is of no slot in particular:
if its slot moves, another fence follows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...errors import OutcomeUnknown, StoreUnavailable
from .cluster import Asking, ClusterConnection, Link, Redirected
from .commands import ALLOW_OOM, Call, Command
from .connection import RedisConnection, Reply

__all__ = ["Replicated"]

BATCH: Final = 1_000
"""Approximate number of scripts in one packet; the batch of a call is not split."""

FENCES_MAX: Final = 3
"""How many slots are tried for a fence while slots move."""


# A full store executes it, too, so that what it accepts is confirmed.
_FENCE: Final = f"{ALLOW_OOM}redis.call('SET', KEYS[1], '')"
# Leaves nothing, since its slot may move, and a key would be in two places.
_PASSING_FENCE: Final = f"{_FENCE} redis.call('DEL', KEYS[1])"


class _Request(NamedTuple):
    calls: Sequence[Call]
    replies: asyncio.Future[list[Reply]]


class Replicated:
    """
    Writes that have to reach replicas.

    Args:
        redis: A connection for these writes only.
        replicas_min: Number of replicas that have to confirm.
        timeout_ms: How long to wait for them.

    """

    def __init__(
        self, redis: RedisConnection, *, replicas_min: int, timeout_ms: int
    ) -> None:
        self.redis = redis
        self._replicas_min = replicas_min
        self._wait: Command = ("WAIT", replicas_min, timeout_ms)
        self._lanes: dict[RedisConnection, _Lane] = {}

    async def run_many(self, calls: Sequence[Call]) -> list[Reply]:
        """
        Run scripts in order and wait until replicas have confirmed them.

        Returns replies as `RedisConnection.run_many` does. A script that ran and was
        not confirmed is an OutcomeUnknown: its write is on the primary, and is lost if
        the primary is.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        redis = self.redis
        if not isinstance(redis, ClusterConnection):
            return await self._lane(redis).run_many(calls)

        async def send(
            link: Link, indices: Sequence[int], asking: Asking
        ) -> list[Reply]:
            if asking:
                # The slot is about to move, and neither of its primaries has all that
                # replicas would have to confirm.
                return [link.try_again() for _ in indices]
            return await self._lane(link).run_many([calls[i] for i in indices])

        commands = [call.by_digest() for call in calls]
        return await redis.distribute(commands, send, reads_from=len(calls), write=True)

    async def close(self) -> None:
        """Drop the connection. Pending calls fail."""
        await self.redis.close()

    def _lane(self, redis: RedisConnection) -> _Lane:
        lane = self._lanes.get(redis)
        if lane is None:
            if isinstance(self.redis, ClusterConnection):
                current = self.redis.links
                self._lanes = {k: v for k, v in self._lanes.items() if k in current}
            lane = _Lane(redis, self._wait, self._replicas_min)
            self._lanes[redis] = lane
        return lane


class _Lane:
    """
    The writes of one server.

    Args:
        redis: The connection to it.
        wait: The command that waits for replicas.
        replicas_min: Number of replicas that have to confirm.

    """

    def __init__(
        self, redis: RedisConnection, wait: Command, replicas_min: int
    ) -> None:
        self._redis = redis
        self._wait = wait
        self._replicas_min = replicas_min
        self._waiting: deque[_Request] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run_many(self, calls: Sequence[Call]) -> list[Reply]:
        """Run scripts in order; see `Replicated.run_many`."""
        replies: asyncio.Future[list[Reply]]
        replies = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(calls, replies))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await replies

    async def _send(self) -> None:
        """Send the waiting calls, packet by packet, until none is left."""
        try:
            while packet := self._gather():
                await self._send_packet(packet)
        finally:
            self._sending = None

    def _gather(self) -> list[_Request]:
        packet: list[_Request] = []
        count = 0
        while self._waiting and (not packet or count < BATCH):
            request = self._waiting.popleft()
            if not request.replies.done():  # Otherwise its caller was cancelled.
                packet.append(request)
                count += len(request.calls)
        return packet

    async def _send_packet(self, packet: list[_Request]) -> None:
        calls = [call for request in packet for call in request.calls]
        try:
            fence = self._fence()
            replies = await self._redis.run_many(calls, after=(fence, self._wait))
            *replies, fenced, confirmed = replies
            if isinstance(fenced, Redirected):
                fenced, confirmed = await self._fence_again()
        except Exception as error:  # Every caller gets it, whatever it is.
            for request in packet:
                if not request.replies.done():
                    request.replies.set_exception(error)
            return
        outcomes = iter(self._outcomes(replies, fenced, confirmed))
        for request in packet:
            own = [next(outcomes) for _ in request.calls]
            if not request.replies.done():
                request.replies.set_result(own)

    def _fence(self, *, other: bool = False) -> Command:
        redis = self._redis
        if isinstance(redis, Link):
            return ("EVAL", _PASSING_FENCE, 1, redis.own_key(other=other))
        return ("EVAL", _FENCE, 1, redis.keys.fence)

    async def _fence_again(self) -> list[Reply]:
        """Wait for replicas behind a fence in another slot: that of the first moves."""
        for _ in range(FENCES_MAX):
            try:
                replies = await self._redis.call_many(
                    [self._fence(other=True), self._wait], write=True
                )
            except StoreUnavailable as error:
                return [error, error]
            if not isinstance(replies[0], Redirected):
                break
        return replies

    def _outcomes(
        self, replies: list[Reply], fenced: Reply, confirmed: Reply
    ) -> list[Reply]:
        # An error of either command confirms nothing.
        if (
            not isinstance(fenced, Exception)
            and isinstance(confirmed, int)
            and confirmed >= self._replicas_min
        ):
            return replies
        return [
            reply if isinstance(reply, Exception) else OutcomeUnknown()
            for reply in replies
        ]

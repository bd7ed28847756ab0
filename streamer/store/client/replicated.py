"""
Writes that replicas confirm before they are acknowledged.

Decides when to ask the replicas and what it means when too few of them answer. Knows
``WAIT``. Knows nothing of what is written.

``WAIT`` holds up every reply behind it on its connection, so these writes have one of
their own, and share: while replicas are asked about some, the next ones gather, and all
of them travel in the next packet with one ``WAIT`` behind them::

    packet 1:  script script fence WAIT
    packet 2:                            script script script fence WAIT

``WAIT`` waits for what was *written* on its own connection. A repeated publish writes
nothing: it finds its record and answers. On Valkey 9.1 such a connection has nothing to
wait for, and ``WAIT`` says at once that the replicas have it all, while the one publish
that counts, sent by another node, may be nowhere but on the primary. So a write goes in
front of every ``WAIT``, the fence: replicas that have it have all that was before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...errors import OutcomeUnknown
from ..keys import FENCE
from .commands import Call, Command
from .connection import RedisConnection, Reply

__all__ = ["Replicated"]

BATCH: Final = 1_000
"""Scripts in one packet, about; a caller's own batch is never divided."""


class _Waiting(NamedTuple):
    calls: Sequence[Call]
    answer: asyncio.Future[list[Reply]]


class Replicated:
    """
    The way of writes to the store that have to reach replicas.

    Args:
        redis: A connection for these writes alone.
        replicas_min: Replicas that have to confirm.
        timeout_ms: How long to wait for them.

    """

    def __init__(
        self, redis: RedisConnection, *, replicas_min: int, timeout_ms: int
    ) -> None:
        self.redis = self._redis = redis
        self._replicas_min = replicas_min
        self._confirm: tuple[Command, Command] = (
            ("SET", FENCE, ""),
            ("WAIT", replicas_min, timeout_ms),
        )
        self._waiting: deque[_Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def run_many(self, calls: Sequence[Call]) -> list[Reply]:
        """
        Run scripts in order, with those of other callers, and have them confirmed.

        Returns their replies as `RedisConnection.run_many` does. What was carried out
        and not confirmed is an OutcomeUnknown: it is in the store, and may be lost with
        it.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        answer: asyncio.Future[list[Reply]]
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(calls, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Drop the connection; what is under way fails."""
        await self._redis.close()

    async def _send(self) -> None:
        """Send what is waiting, a packet at a time, until nothing is."""
        try:
            while packet := self._gather():
                await self._send_packet(packet)
        finally:
            self._sending = None

    def _gather(self) -> list[_Waiting]:
        packet: list[_Waiting] = []
        count = 0
        while self._waiting and (not packet or count < BATCH):
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # Else its caller was cancelled.
                packet.append(waiting)
                count += len(waiting.calls)
        return packet

    async def _send_packet(self, packet: list[_Waiting]) -> None:
        calls = [call for waiting in packet for call in waiting.calls]
        try:
            replies = await self._redis.run_many(calls, after=self._confirm)
        except Exception as error:  # It is the callers', whatever it is.
            for waiting in packet:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        answers = iter(self._judge(replies))
        for waiting in packet:
            mine = [next(answers) for _ in waiting.calls]
            if not waiting.answer.done():
                waiting.answer.set_result(mine)

    def _judge(self, replies: list[Reply]) -> list[Reply]:
        *replies, fence, confirmed = replies
        # An error of either is no confirmation, whatever it says.
        if (
            not isinstance(fence, Exception)
            and isinstance(confirmed, int)
            and confirmed >= self._replicas_min
        ):
            return replies
        return [
            reply if isinstance(reply, Exception) else OutcomeUnknown()
            for reply in replies
        ]

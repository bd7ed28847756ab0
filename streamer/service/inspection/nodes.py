"""
Asking all nodes: one question, an answer from each, and the names of the silent ones.

Decides how long answers are waited for, which nodes are expected to answer, and how
many questions are on their way. Knows the channel and the heartbeats. Knows nothing of
what is asked.

A question costs one message per node and one answer of each. Answers that come after
`ANSWER_S` are dropped. A node that hangs, or has been killed less than `ALIVE_MS` ago,
is named as silent and delays nothing but this question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from ...core.limits import RateLimiter, Slots
from ...errors import Limit, StoreUnavailable
from ...model import Log, new_name
from ...store.client.connection import RedisConnection
from ...store.client.faults import STORE_FAILURES
from ...store.presence.leases import alive_nodes
from ...store.presence.node_channel import NodeChannel, tell_nodes
from .questions import Answer, Forget, Question

__all__ = ["Answers", "Nodes", "forget_player"]

ANSWER_S: Final = 0.8
"""How long answers are waited for, so that a response takes less than a second."""

ASKING_MAX: Final = 32
"""Questions of this node that wait for answers at the same time."""

ANSWERS_PER_S: Final = 200
"""
Questions that a node answers per second; it is silent to the others. An answer takes a
millisecond or two, so this is what administration may cost of a node.
"""

NODES_MAX: Final = 1_000
"""Answers that are kept of a question."""

_logger = logging.getLogger(__name__)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Question).decode

A = TypeVar("A", bound=Answer)


class Answers(NamedTuple, Generic[A]):
    """The answers by the names of nodes, and the names of live nodes without one."""

    of: Mapping[str, A]
    silent: list[str]


class _Waiting:
    """A question of this node that waits for answers."""

    __slots__ = ("answers", "arrived")

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.arrived = asyncio.Event()


class Nodes:
    """
    The other nodes, and this one, as this node knows them.

    Args:
        redis: The connection to the store.
        channel: The channel of the nodes.
        answer: Answers questions for this node. Neither waits nor raises.
        monotonic_s: Returns monotonic time.

    """

    def __init__(
        self,
        redis: RedisConnection,
        channel: NodeChannel,
        answer: Callable[[Question], Answer],
        *,
        monotonic_s: Callable[[], float] = monotonic,
    ) -> None:
        self._redis = redis
        self._channel = channel
        self._answer = answer
        self._monotonic_s = monotonic_s
        self._waiting: dict[str, _Waiting] = {}
        self._slots = Slots(ASKING_MAX, Limit.REQUESTS_PER_NODE, retry_after_s=1)
        self._rate = RateLimiter(ANSWERS_PER_S, burst=ANSWERS_PER_S)
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        """Whether questions and answers arrive."""
        return self._channel.complete

    async def run(self) -> None:
        """Answer questions until cancelled."""
        await self._channel.run(self)

    async def ask(self, question: Question, answer_type: type[A]) -> Answers[A]:
        """
        Ask all nodes; return when all live ones have answered, or after `ANSWER_S`.

        An answer that is not of `answer_type` counts as none.

        Raises:
            LimitReached: Too many questions of this node wait for answers.
            StoreUnavailable: Nobody was asked.

        """
        question_id, waiting = new_name(), _Waiting()
        self._slots.acquire()
        self._waiting[question_id] = waiting
        expected: set[str] | None = None
        try:
            async with asyncio.timeout(ANSWER_S):
                alive, _ = await asyncio.gather(
                    alive_nodes(self._redis),
                    self._channel.ask(question_id, _encode(question)),
                )
                expected = {node.decode() for node in alive}
                while not expected <= waiting.answers.keys():
                    waiting.arrived.clear()
                    await waiting.arrived.wait()
        except TimeoutError:
            if expected is None:
                raise StoreUnavailable("does not answer", write=False) from None
        finally:
            del self._waiting[question_id]
            self._slots.release()
        answers = _decoded(waiting.answers, answer_type)
        return Answers(answers, sorted(expected - answers.keys()))

    def on_question(self, asker: str, question_id: str, body: bytes) -> None:
        if not self._rate.allow(self._monotonic_s()):
            _logger.warning("too many questions of nodes; one is not answered")
            return
        try:
            answer = _encode(self._answer(_decode(body)))
        except msgspec.DecodeError as error:
            # Of a newer version, perhaps.
            _logger.info("a question of a node was not understood: %s", error)
            return
        except Exception:  # Of this question; the others have to be answered, too.
            _logger.exception("could not answer a question of a node")
            return
        sending = asyncio.create_task(self._send(asker, question_id, answer))
        self._answering.add(sending)
        sending.add_done_callback(self._answering.discard)

    async def _send(self, asker: str, question_id: str, answer: bytes) -> None:
        try:
            await self._channel.answer(asker, question_id, answer)
        except (*STORE_FAILURES, ValueError) as error:
            _logger.info("could not answer a question of a node: %s", error)

    def on_answer(self, node: str, question_id: str, body: bytes) -> None:
        waiting = self._waiting.get(question_id)
        # A late answer has no question any more.
        if waiting is not None and len(waiting.answers) < NODES_MAX:
            waiting.answers[node] = body
            waiting.arrived.set()


async def forget_player(redis: RedisConnection, log: Log) -> None:
    """
    Have all nodes forget the history of a player, without waiting for them.

    A later question to the nodes finds nothing of it. A node that gets no messages now
    keeps it until newer events replace it, or until it ends. Raises StoreUnavailable.
    """
    await tell_nodes(redis, _encode(Forget(app=log.app, player=log.player)))


def _decoded(answers: Mapping[str, bytes], answer_type: type[A]) -> dict[str, A]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(answer_type)
    decoded = {}
    for node, body in answers.items():
        try:
            decoded[node] = decoder.decode(body)
        except msgspec.DecodeError as error:
            _logger.warning("an answer of a node was not understood: %s", error)
    return decoded

"""
The channel of the nodes: questions to all of them, and their answers.

Decides which channels are subscribed and how a message is parsed. Knows Pub/Sub
replies; `store.client.subscriber` keeps the connection. Knows nothing of what is asked,
nor how long an answer is waited for.

Every node subscribes to one channel for questions and to one of its own for answers.
All of them are in one slot, so that one connection suffices. A message is one of::

    ask <id> <node that asks> <body>
    answer <id> <node that answers> <body>

Messages are delivered at most once, and only while connected. Who may publish on the
store may ask and answer; the store's own credentials protect the channel.
"""

from __future__ import annotations

import logging
import re
from typing import Final, Protocol

from ...errors import StoreUnavailable
from ...model import new_name
from ...store_url import NAMESPACE
from ..client.address import StoreAddress
from ..client.cluster_subscriber import subscriber_at
from ..client.connection import RedisConnection
from ..client.faults import CONNECTION, StoreFaults
from ..client.sentinel import address_at
from ..keys import keys_of

__all__ = ["NodeChannel", "NodeMessageHandler", "tell_nodes"]

PART: Final = "messages between nodes"
"""The name of this part in `StoreFaults`."""

MESSAGE_BYTES_MAX: Final = 1_048_576
"""A longer message is neither sent nor read."""

TOLD_AFTER_S: Final = 3.0
"""How long a refusal has to last: others may be refused in the same moment."""

_NAME: Final = re.compile(rb"[0-9a-f]{16}")

_logger = logging.getLogger(__name__)


class _Refusals(StoreFaults):
    """
    Tells the log what the store refuses of this channel, and nobody else.

    A node that cannot be asked delivers all the same, so it is ready. What `others`
    tell of the store is not told again: they are the parts that a node needs.
    """

    def __init__(self, others: StoreFaults) -> None:
        super().__init__(others.where)
        self._others = others
        self._refused_at_s: float | None = None

    def failed(self, part: str, problem: str, *, partial: bool = False) -> None:
        if not part.startswith(PART):  # On a cluster the name of a primary follows.
            return
        now_s = self._clock_s()
        if self._refused_at_s is None:
            self._refused_at_s = now_s
        is_lasting = now_s - self._refused_at_s >= TOLD_AFTER_S
        if is_lasting and self._others.reason is None:
            told = problem.replace("announcements", PART)
            super().failed(part, told, partial=partial)

    def passed(self, part: str = CONNECTION) -> None:
        if part.startswith(PART):
            self._refused_at_s = None
        super().passed(part)


async def tell_nodes(redis: RedisConnection, body: bytes) -> None:
    """
    Send a question to all nodes whose answers nobody gets, from any process.

    Raises StoreUnavailable.
    """
    message = _message(b"ask", new_name(), new_name(), body)
    await redis.call("SPUBLISH", redis.keys.questions, message)


def _message(kind: bytes, question_id: str, node: str, body: bytes) -> bytes:
    head = b"%b %b %b " % (kind, question_id.encode(), node.encode())
    if len(head) + len(body) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes is too long")
    return head + body


class NodeMessageHandler(Protocol):
    """Receives the messages. No method may wait or raise."""

    def on_question(self, asker: str, question_id: str, body: bytes) -> None:
        """A node asks all nodes; this one, too, gets its own questions."""

    def on_answer(self, node: str, question_id: str, body: bytes) -> None:
        """A node has answered a question of this one."""


class NodeChannel:
    """
    The subscriptions of one node, on a connection that `run` keeps open.

    Args:
        store: The store, as for `RedisConnection`.
        redis: Publishes the messages.
        node: The node's name, as `model.new_name` returns it.
        namespace: As for `RedisConnection`.
        name: Name in ``CLIENT LIST``.
        faults: What others know to fail.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        redis: RedisConnection,
        node: str,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer-nodes",
        faults: StoreFaults | None = None,
    ) -> None:
        address = address_at(store)
        self.node = node
        self._redis = redis
        self._keys = keys_of(namespace, address.database)
        self._channels = {
            self._keys.questions.encode(),
            self._keys.answers(node).encode(),
        }
        self._confirmed: set[bytes] = set()
        self._handler: NodeMessageHandler | None = None
        self._refusals = _Refusals(faults or StoreFaults(address.where))
        self._subscriber = subscriber_at(
            address,
            self,
            name=name,
            part=PART,
            faults=self._refusals,
        )

    @property
    def complete(self) -> bool:
        """Whether questions and answers arrive."""
        return self._confirmed == self._channels

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._subscriber.server

    def reconnect(self) -> None:
        """Drop the connection; `run` opens another."""
        self._subscriber.reconnect()

    async def run(self, handler: NodeMessageHandler) -> None:
        """Keep the connection open; runs until cancelled."""
        self._handler = handler
        await self._subscriber.run()

    async def ask(self, question_id: str, body: bytes) -> None:
        """
        Send a question to all nodes, this one included.

        Raises:
            StoreUnavailable: Nobody gets it, or no answer would arrive.

        """
        if not self.complete:
            raise StoreUnavailable("no messages of nodes arrive", write=False)
        await self._publish(self._keys.questions, b"ask", question_id, body)

    async def answer(self, asker: str, question_id: str, body: bytes) -> None:
        """Send an answer to the node that has asked. Raises StoreUnavailable."""
        await self._publish(self._keys.answers(asker), b"answer", question_id, body)

    async def _publish(
        self, channel: str, kind: bytes, question_id: str, body: bytes
    ) -> None:
        message = _message(kind, question_id, self.node, body)
        # Not a write: nothing is stored, and a lost message is no harm.
        await self._redis.call("SPUBLISH", channel, message)

    def on_open(self) -> None:
        self._subscriber.send(*(("SSUBSCRIBE", it) for it in self._channels))

    def on_watch(self, now_s: float) -> None:
        self._refusals.tell_recovery()

    def on_closed(self) -> None:
        self._confirmed.clear()

    def may_take(self) -> bool:
        return True

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        if channel not in self._channels:
            return
        if kind == b"smessage":
            self._receive(payload)
        elif kind == b"ssubscribe":
            self._confirmed.add(channel)
            if self.complete:
                self._subscriber.note_subscribed()
        elif kind == b"sunsubscribe":
            # The slot has moved.
            self._confirmed.discard(channel)
            self._subscriber.send(("SSUBSCRIBE", channel))

    def _receive(self, payload: bytes) -> None:
        kind, _, rest = payload.partition(b" ")
        question_id, _, rest = rest.partition(b" ")
        node, _, body = rest.partition(b" ")
        is_valid = _NAME.fullmatch(question_id) and _NAME.fullmatch(node)
        if self._handler is None or not is_valid or len(payload) > MESSAGE_BYTES_MAX:
            _logger.warning("a message of a node was not understood")
        elif kind == b"ask":
            self._handler.on_question(node.decode(), question_id.decode(), body)
        elif kind == b"answer":
            self._handler.on_answer(node.decode(), question_id.decode(), body)

"""Questions of a node to all nodes, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from streamer.errors import StoreUnavailable
from streamer.model import new_name
from streamer.store.client.connection import RedisConnection
from streamer.store.presence.node_channel import MESSAGE_BYTES_MAX, NodeChannel

from ...conftest import Until

QUESTION = "0" * 15 + "1"


class Node:
    """A node that keeps what it receives."""

    def __init__(self, url: str, redis: RedisConnection, **options: Any) -> None:
        self.channel = NodeChannel(url, redis, new_name(), **options)
        self.received: asyncio.Queue[tuple[str, str, str, bytes]] = asyncio.Queue()

    @property
    def name(self) -> str:
        return self.channel.node

    def on_question(self, asker: str, question_id: str, body: bytes) -> None:
        self.received.put_nowait(("question", asker, question_id, body))

    def on_answer(self, node: str, question_id: str, body: bytes) -> None:
        self.received.put_nowait(("answer", node, question_id, body))

    async def next(self) -> tuple[str, str, str, bytes]:
        async with asyncio.timeout(60):
            return await self.received.get()

    @asynccontextmanager
    async def running(self, until: Until) -> AsyncIterator[Node]:
        running = asyncio.create_task(self.channel.run(self))
        try:
            await until(lambda: self.channel.complete)
            yield self
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def nodes(
    store_url: str, redis: RedisConnection, until: Until
) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Node(store_url, redis).running(until))
            for _ in range(2)
        ]


async def test_a_question_reaches_every_node_and_its_asker(nodes: list[Node]) -> None:
    one = nodes[0]

    await one.channel.ask(QUESTION, b'{"a": 1}')

    for node in nodes:
        assert await node.next() == ("question", one.name, QUESTION, b'{"a": 1}')


async def test_an_answer_reaches_only_the_node_that_has_asked(
    nodes: list[Node],
) -> None:
    one, other = nodes

    await other.channel.answer(one.name, QUESTION, b"yes")
    await one.channel.answer(other.name, QUESTION, b"no")

    assert await one.next() == ("answer", other.name, QUESTION, b"yes")
    assert await other.next() == ("answer", one.name, QUESTION, b"no")


async def test_what_is_no_message_is_passed_over(
    nodes: list[Node], redis: RedisConnection
) -> None:
    one, _ = nodes
    name = one.name.encode()
    for garbage in (
        b"",
        b"ask",
        b"ask id " + name + b" body",
        b"ask " + QUESTION.encode() + b" of:another:channel body",
        b"say " + QUESTION.encode() + b" " + name + b" body",
        b"ask " + QUESTION.encode() + b" " + name + b" " + b"x" * MESSAGE_BYTES_MAX,
    ):
        await redis.call("SPUBLISH", redis.keys.questions, garbage)
    await one.channel.ask(QUESTION, b"last")

    assert await one.next() == ("question", one.name, QUESTION, b"last")


async def test_a_message_that_nobody_would_read_is_not_sent(nodes: list[Node]) -> None:
    with pytest.raises(ValueError, match="too long"):
        await nodes[0].channel.ask(QUESTION, b"x" * MESSAGE_BYTES_MAX)


async def test_a_node_that_hears_nothing_asks_nothing(
    store_url: str, redis: RedisConnection
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await Node(store_url, redis).channel.ask(QUESTION, b"")

    assert refused.value.words == "no messages of nodes arrive"


async def test_messages_arrive_again_after_the_connection_was_lost(
    nodes: list[Node], until: Until
) -> None:
    one, _ = nodes
    one.channel.reconnect()
    await until(lambda: not one.channel.complete)
    await until(lambda: one.channel.complete)

    await one.channel.ask(QUESTION, b"again")

    assert (await one.next())[3] == b"again"


async def test_deployments_do_not_hear_each_other(
    store_url: str, redis: RedisConnection, nodes: list[Node], until: Until
) -> None:
    foreign = RedisConnection(store_url, namespace="other")
    async with Node(store_url, foreign, namespace="other").running(until) as other:
        await other.channel.ask(QUESTION, b"theirs")
        await nodes[0].channel.ask(QUESTION, b"ours")

        assert (await other.next())[3] == b"theirs"
        assert (await nodes[0].next())[3] == b"ours"
    await foreign.close()

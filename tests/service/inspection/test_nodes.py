"""Asking all nodes: who answers, who is silent, and what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamer.errors import LimitReached, StoreUnavailable
from streamer.service.inspection import nodes as nodes_module
from streamer.service.inspection.nodes import Nodes
from streamer.service.inspection.questions import (
    Answer,
    Ended,
    Forget,
    Forgotten,
    Question,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.presence.leases import Leases
from streamer.store.presence.node_channel import NodeChannel

from ...conftest import Until

QUESTION = Forget(app="app", player="ann")
MakeNode = Callable[..., Awaitable["Node"]]


class Node:
    """A node that answers with its number, and keeps what it was asked."""

    def __init__(self, url: str, redis: RedisConnection, number: int) -> None:
        self.number = number
        self.asked: list[Question] = []
        self.leases = Leases(redis, leases_max=1)
        self.channel = NodeChannel(url, redis, self.leases.node)
        self.nodes = Nodes(redis, self.channel, self.answer)

    @property
    def name(self) -> str:
        return self.leases.node

    def answer(self, question: Question) -> Answer:
        self.asked.append(question)
        return Forgotten(host="here", pid=self.number)

    async def ask(self) -> tuple[dict[str, int], list[str]]:
        answers = await self.nodes.ask(QUESTION, Forgotten)
        return {name: it.pid for name, it in answers.of.items()}, answers.silent


@pytest.fixture
async def make_node(
    store_url: str, redis: RedisConnection, until: Until
) -> AsyncIterator[MakeNode]:
    running: list[asyncio.Task[None]] = []

    async def make(*, hears: bool = True) -> Node:
        node = Node(store_url, redis, len(running) + 1)
        await node.leases.beat()
        if hears:
            running.append(asyncio.create_task(node.nodes.run()))
            await until(lambda: node.nodes.is_connected)
        return node

    yield make
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)


async def test_every_node_answers(make_node: MakeNode) -> None:
    one, other = await make_node(), await make_node()

    answers, silent = await one.ask()

    assert (answers, silent) == ({one.name: 1, other.name: 2}, [])
    assert one.asked == other.asked == [QUESTION]


async def test_a_live_node_without_an_answer_is_named(
    make_node: MakeNode,
) -> None:
    one, deaf = await make_node(), await make_node(hears=False)

    assert await one.ask() == ({one.name: 1}, [deaf.name])


async def test_a_node_that_has_left_is_not_waited_for(make_node: MakeNode) -> None:
    one, gone = await make_node(), await make_node(hears=False)
    await gone.leases.leave()

    assert await one.ask() == ({one.name: 1}, [])


async def test_an_answer_that_is_late_or_to_nobody_is_dropped(
    make_node: MakeNode,
) -> None:
    one, other = await make_node(), await make_node()

    await other.channel.answer(one.name, "0" * 16, b'{"host":"late","pid":9}')

    assert await one.ask() == ({one.name: 1, other.name: 2}, [])


async def test_an_answer_of_another_kind_counts_as_none(
    make_node: MakeNode,
) -> None:
    one = await make_node()

    answers = await one.nodes.ask(QUESTION, Ended)

    assert answers == ({}, [one.name])


async def test_a_question_of_another_version_is_not_answered(
    make_node: MakeNode, until: Until
) -> None:
    one = await make_node()

    one.nodes.on_question(one.name, "0" * 16, b'{"type":"from the future"}')
    one.nodes.on_question(one.name, "0" * 16, b"\xff")

    assert one.asked == []
    assert await one.ask() == ({one.name: 1}, [])


async def test_a_node_whose_answer_fails_answers_the_next_question(
    make_node: MakeNode,
) -> None:
    one = await make_node()
    answer = one.nodes._answer

    def fail(question: Question) -> Answer:
        one.nodes._answer = answer
        raise ZeroDivisionError

    one.nodes._answer = fail

    assert await one.ask() == ({}, [one.name])
    assert await one.ask() == ({one.name: 1}, [])


async def test_a_node_answers_so_many_questions_a_second(
    store_url: str, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "ANSWERS_PER_S", 2)
    node = Node(store_url, redis, 1)
    nodes = Nodes(redis, node.channel, node.answer, monotonic_s=lambda: 5.0)
    body = b'{"type":"forget","app":"app","player":"ann"}'

    for _ in range(3):
        nodes.on_question("f" * 16, "0" * 16, body)

    assert len(node.asked) == 2
    await asyncio.gather(*nodes._answering)


async def test_too_many_questions_at_once_are_refused(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "ASKING_MAX", 1)
    one = await make_node()

    first = asyncio.create_task(one.ask())
    await asyncio.sleep(0)
    with pytest.raises(LimitReached):
        await one.ask()

    assert await first == ({one.name: 1}, [])


async def test_a_node_that_hears_nothing_says_so(make_node: MakeNode) -> None:
    deaf = await make_node(hears=False)

    with pytest.raises(StoreUnavailable):
        await deaf.ask()

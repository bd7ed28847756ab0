"""Nodes of a cluster that disagree about a slot, or do not say where they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from streamer.store.client import asking, cluster_address
from streamer.store.client.cluster_address import ClusterAddress
from streamer.store.client.cluster_subscriber import (
    ENDED,
    PAUSE_S,
    ClusterSubscriber,
)
from streamer.store.client.faults import StoreFaults
from streamer.store.client.slots import SLOTS, slot_of
from streamer.store_url import ClusterUrl, parse_store_url
from streamer_conformance.listener import Listener

from ...conftest import GUARD_S, Until

CHANNEL = b"{channel}"
SLOT = slot_of(CHANNEL)
NEIGHBOUR = next(it for it in (b"{%d}" % n for n in count()) if slot_of(it) < SLOT)
"""A channel of another slot that the same node has."""


class FakeNode:
    """
    A node of a cluster that is not one.

    Args:
        reply: What it answers to SSUBSCRIBE for `CHANNEL`; None means that it
            subscribes.

    """

    def __init__(self, reply: str | None = None) -> None:
        self.reply = reply
        self.slots: list[Any] = []
        """The reply to CLUSTER SLOTS."""
        self.subscribed: list[float] = []
        """When it was asked to subscribe to `CHANNEL`."""
        self.listener = Listener(self._serve)

    @property
    def port(self) -> int:
        return self.listener.port

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while words := await self._command(reader):
            writer.write(self._answer(words))

    async def _command(self, reader: asyncio.StreamReader) -> list[bytes]:
        head = await reader.readline()
        words = []
        for _ in range(int(head[1:] or 0)):
            length = int((await reader.readline())[1:])
            words.append((await reader.readexactly(length + 2))[:-2])
        return words

    def _answer(self, words: list[bytes]) -> bytes:
        match words:
            case [b"CLUSTER", b"SLOTS"]:
                return encoded(self.slots)
            case [b"CLUSTER", b"INFO"]:
                return encoded(b"cluster_state:ok\r\ncluster_current_epoch:1\r\n")
            case [b"SSUBSCRIBE", *channels]:
                if CHANNEL in channels:
                    self.subscribed.append(asyncio.get_running_loop().time())
                    if self.reply is not None:
                        return b"-%b\r\n" % self.reply.encode()
                return b"".join(encoded([b"ssubscribe", it, 1]) for it in channels)
            case [b"SUNSUBSCRIBE", channel]:
                return encoded([b"sunsubscribe", channel, 0])
            case _:
                return b"+OK\r\n"


def encoded(value: Any) -> bytes:
    match value:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case _:
            return b"*%d\r\n%b" % (len(value), b"".join(map(encoded, value)))


class Owner:
    """Wants two channels, and subscribes to one whenever that has ended."""

    subscriber: ClusterSubscriber

    def __init__(self) -> None:
        self.confirmed = 0
        self.neighbour = 0
        """How often the other channel was confirmed."""

    def on_open(self) -> None:
        self.subscriber.send(("SSUBSCRIBE", CHANNEL), ("SSUBSCRIBE", NEIGHBOUR))

    def may_take(self) -> bool:
        return True

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        if kind == ENDED:
            self.subscriber.send(("SSUBSCRIBE", channel))
        self.confirmed += kind == b"ssubscribe" and channel == CHANNEL
        self.neighbour += kind == b"ssubscribe" and channel == NEIGHBOUR

    def on_watch(self, now_s: float) -> None:
        pass

    def on_closed(self) -> None:
        pass


@pytest.fixture
async def pair() -> AsyncIterator[tuple[FakeNode, FakeNode]]:
    """Give two nodes; the first one has the slot, by the map of both."""
    nodes = FakeNode(), FakeNode()
    for node in nodes:
        await node.listener.open()
    one, two = (node.port for node in nodes)
    for node in nodes:
        node.slots = [
            [0, SLOT, [b"127.0.0.1", one]],
            [SLOT + 1, SLOTS - 1, [b"127.0.0.1", two]],
        ]
    yield nodes
    for node in nodes:
        await node.listener.close()


@pytest.fixture
async def owner(pair: tuple[FakeNode, FakeNode]) -> AsyncIterator[Owner]:
    owner = Owner()
    address = ClusterAddress(parse_cluster(*(node.port for node in pair)))
    owner.subscriber = ClusterSubscriber(
        address, owner, name="test", part="announcements", faults=StoreFaults()
    )
    running = asyncio.create_task(owner.subscriber.run())
    yield owner
    running.cancel()
    await asyncio.wait([running])
    await address.close()


def parse_cluster(*ports: int) -> ClusterUrl:
    return cluster_url(
        "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)
    )


def cluster_url(text: str) -> ClusterUrl:
    url = parse_store_url(text)
    assert isinstance(url, ClusterUrl)
    return url


def moved_to(node: FakeNode, host: str = "127.0.0.1") -> str:
    return f"MOVED {SLOT} {host}:{node.port}"


async def test_two_nodes_that_send_a_subscription_back_and_forth_are_waited_for(
    pair: tuple[FakeNode, FakeNode], owner: Owner, until: Until
) -> None:
    one, two = pair
    one.reply, two.reply = moved_to(two), moved_to(one)

    await until(lambda: len(one.subscribed) + len(two.subscribed) >= 8)

    times = sorted(one.subscribed + two.subscribed)
    # The first is followed at once, and the seventh after 50, 100, 200, … ms.
    assert times[7] - times[0] > 2 * PAUSE_S[1]

    # They have heard of each other: the second one has it.
    one.slots = two.slots = [[0, SLOTS - 1, [b"127.0.0.1", two.port]]]
    two.reply = None
    await until(lambda: owner.confirmed)


async def test_a_move_to_a_node_without_a_host_stays_with_the_host(
    pair: tuple[FakeNode, FakeNode], owner: Owner, until: Until
) -> None:
    one, two = pair
    one.reply = moved_to(two, host="")

    await until(lambda: owner.confirmed)

    assert two.subscribed


@pytest.mark.parametrize("host", ["?", "127.0.0.1"])
async def test_a_move_that_leads_nowhere_else_is_asked_for_again(
    pair: tuple[FakeNode, FakeNode], owner: Owner, until: Until, host: str
) -> None:
    one, _ = pair
    # Itself, or a node whose address it does not know yet.
    one.reply = moved_to(one, host)
    await until(lambda: len(one.subscribed) >= 3)
    assert not owner.confirmed
    # To subscribe once more makes all readers read.
    assert owner.neighbour == 1

    one.reply = None

    await until(lambda: owner.confirmed)


@pytest.fixture
def is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no other node because the machine is busy."""
    monkeypatch.setattr(asking, "NEXT_AFTER_S", GUARD_S)
    monkeypatch.setattr(cluster_address, "ANSWER_TIMEOUT_S", GUARD_S)


async def test_the_names_in_the_url_are_asked_only_if_no_node_answers(
    pair: tuple[FakeNode, FakeNode], is_patient: None
) -> None:
    one, two = pair
    for node in pair:
        # As with cluster-preferred-endpoint-type unknown-endpoint.
        node.slots = [
            [0, SLOT, [None, one.port]],
            [SLOT + 1, SLOTS - 1, [None, two.port]],
        ]
    url = f"redis+cluster://127.0.0.1:{one.port},localhost:{two.port}"
    address = ClusterAddress(cluster_url(url))
    try:
        first = await address.slots()
        changes: list[None] = []
        address.watch(lambda: changes.append(None))

        for _ in range(4):
            address._back_off.reset()
            await address.refresh()

        assert address.map == first
        assert not changes

        (host,) = {place.host for place in first.shards}
        other = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}[host]
        assert other in [node.host for node in address._nodes()[-1:]]
    finally:
        await address.close()


async def test_a_node_that_knows_all_others_is_preferred(
    pair: tuple[FakeNode, FakeNode], is_patient: None
) -> None:
    one, two = pair
    whole = two.slots
    one.slots = [whole[0], [SLOT + 1, SLOTS - 1, [b"?", two.port]]]
    address = ClusterAddress(parse_cluster(one.port, two.port))
    try:
        for _ in range(3):
            assert (await address.slots()).uncovered == 0
            address._back_off.reset()
            await address.refresh()
    finally:
        await address.close()


async def test_a_primary_whose_last_slot_waited_to_move_is_left_as_well(
    pair: tuple[FakeNode, FakeNode], owner: Owner, until: Until
) -> None:
    one, two = pair
    one.reply = moved_to(one)
    await until(lambda: len(one.subscribed) >= 2)

    one.slots = two.slots = [[0, SLOTS - 1, [b"127.0.0.1", two.port]]]

    await until(lambda: owner.confirmed)
    await until(lambda: [it.port for it in owner.subscriber._shards] == [two.port])

"""Connections to a cluster: what is split and joined, and what follows a slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.store.client.cluster import ClusterConnection, redis_at
from streamer.store.client.cluster_address import NO_CLUSTER, ClusterAddress
from streamer.store.client.commands import Script, ScriptCall
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.client.replicated import Replicated
from streamer.store.client.scanning import scan
from streamer.store.client.slots import Place, slot_of
from streamer_conformance.listener import Listener

from ...conftest import Until
from ...e2e.clusters import Cluster, ClusterNode

PUT = Script("put_until")
KEYS = [f"streamer:{{{n}}}:k" for n in range(40)]


@pytest.fixture
async def cluster(nodes: Cluster) -> AsyncIterator[ClusterConnection]:
    redis = redis_at(nodes.url, name="cluster-test")
    assert isinstance(redis, ClusterConnection)
    yield redis
    await redis.close()


def node_of(nodes: Cluster, redis: ClusterConnection, key: str) -> ClusterNode:
    map_ = redis.cluster.map
    assert map_ is not None
    place = map_.owners[slot_of(key)]
    return next(it for it in nodes.primaries if place and it.port == place.port)


async def slot_moves(
    nodes: Cluster, redis: ClusterConnection, key: str
) -> tuple[int, ClusterNode, ClusterNode]:
    """Return a key's slot, its primary and another one, once the map is known."""
    await redis.call("PING")
    source = node_of(nodes, redis, key)
    target = next(it for it in nodes.primaries if it is not source)
    return slot_of(key), source, target


async def test_a_slot_is_the_one_of_the_server(cluster: ClusterConnection) -> None:
    for key in ("a", "a{b}c", "a{}b{c}", "{{a}}", "a{b", "}a{", "\U0001f600{\xfc}", ""):
        assert await cluster.call("CLUSTER", "KEYSLOT", key) == slot_of(key)


async def test_replies_are_in_the_order_of_the_commands(
    cluster: ClusterConnection,
) -> None:
    stored = await cluster.call_many([("SET", key, key) for key in KEYS], write=True)
    assert stored == [b"OK"] * len(KEYS)

    read = await cluster.call_many([("GET", key) for key in KEYS])

    assert read == [key.encode() for key in KEYS]
    assert len([it for it in cluster.links if it.server]) == 3
    assert cluster.connects == 3


async def test_a_failure_is_that_of_its_command(cluster: ClusterConnection) -> None:
    await cluster.call_many([("SET", key, "text") for key in KEYS], write=True)

    replies = await cluster.call_many(
        [
            ("LPUSH" if n % 3 == 0 else "GET", key, *(["x"] if n % 3 == 0 else []))
            for n, key in enumerate(KEYS)
        ]
    )

    for n, reply in enumerate(replies):
        assert isinstance(reply, Exception) == (n % 3 == 0)


async def test_scripts_run_where_their_keys_are(cluster: ClusterConnection) -> None:
    calls = [ScriptCall(PUT, (key,), (key, "PX", 60_000)) for key in KEYS]

    # Each server has yet to learn the script.
    replies = await cluster.run_many(calls, after=[("GET", key) for key in KEYS])

    assert not [it for it in replies if isinstance(it, Exception)]
    assert replies[len(KEYS) :] == [key.encode() for key in KEYS]


async def test_all_keys_are_walked_through(cluster: ClusterConnection) -> None:
    await cluster.call_many([("SET", key, "") for key in KEYS], write=True)

    found = [key async for keys in scan(cluster, "COUNT", 10) for key in keys]

    assert {key.encode() for key in KEYS} <= set(found)
    assert len(found) == len(set(found))


async def test_a_command_without_a_key_has_one_server(
    cluster: ClusterConnection,
) -> None:
    home = await cluster.server_of(cluster.keys.nodes)

    for _ in range(3):
        # A clock that the heartbeats of nodes are measured by.
        assert await cluster.now_ms() > 0
    assert [it.server for it in cluster.links if it.server] == [home.server]


async def test_a_slot_that_has_moved_is_followed(
    nodes: Cluster, cluster: ClusterConnection
) -> None:
    key = KEYS[0]
    slot, source, target = await slot_moves(nodes, cluster, key)
    await cluster.call("SET", key, "1", write=True)
    await nodes.move(slot, source, target)
    try:
        # The map does not know it yet.
        assert node_of(nodes, cluster, key) is source
        assert await cluster.call("INCR", key, write=True) == 2
        assert node_of(nodes, cluster, key) is target
    finally:
        await nodes.move(slot, target, source)
    calls = [ScriptCall(PUT, (key,), ("a", "PX", 60_000))]
    (reply,) = await cluster.run_many(calls)
    assert not isinstance(reply, Exception)
    assert await cluster.call("GET", key) == b"a"


async def test_nodes_that_do_not_name_themselves_are_followed_by_their_ports(
    nodes: Cluster,
) -> None:
    setting = "cluster-preferred-endpoint-type"
    for node in nodes.primaries:
        await node.ask("CONFIG", "SET", setting, "unknown-endpoint")
    redis = redis_at(nodes.url.replace("127.0.0.1", "localhost"))
    assert isinstance(redis, ClusterConnection)
    key = KEYS[0]
    try:
        slot, source, target = await slot_moves(nodes, redis, key)
        await nodes.move(slot, source, target)
        try:
            words = await source_words(source, key)
            assert words == f"MOVED {slot} :{target.port}"
            assert await redis.call("INCR", key, write=True) == 1
            assert node_of(nodes, redis, key) is target
            assert {it.host for it in redis.cluster.map.shards} == {"localhost"}  # type: ignore[union-attr]
        finally:
            await nodes.move(slot, target, source)
        assert await redis.call("DEL", key, write=True) == 1
    finally:
        await redis.close()
        for node in nodes.primaries:
            await node.ask("CONFIG", "SET", setting, "ip")


async def source_words(source: ClusterNode, key: str) -> str:
    """Return why a node does not have a key, in its own words."""
    with pytest.raises(StoreUnavailable) as refused:
        await source.ask("GET", key)
    return refused.value.words


async def test_a_key_of_a_moving_slot_is_asked_for(
    nodes: Cluster, cluster: ClusterConnection
) -> None:
    key = KEYS[0]
    slot, source, target = await slot_moves(nodes, cluster, key)
    await cluster.call("SET", key, "1", write=True)
    async with nodes.moving(slot, source, target):
        # The key has left, and the slot has not.
        assert await cluster.call("INCR", key, write=True) == 2
        assert await cluster.call_many(
            [("INCR", key), ("GET", KEYS[1]), ("GET", key)], write=True
        ) == [3, None, b"3"]
        (reply,) = await cluster.run_many([ScriptCall(PUT, (key,), ("s", "PX", 9_000))])
        assert not isinstance(reply, Exception)
        assert node_of(nodes, cluster, key) is source
    assert await cluster.call("GET", key) == b"s"


async def test_a_script_with_keys_in_two_places_waits_for_its_slot(
    nodes: Cluster, cluster: ClusterConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = "streamer:{0}:k", "streamer:{0}:l"
    text = "return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])"
    command = ("EVAL", text, 2, one, other)
    slot, source, target = await slot_moves(nodes, cluster, one)
    await cluster.call("SET", one, "1", write=True)
    async with nodes.moving(slot, source, target):
        running = asyncio.create_task(cluster.call(*command, write=True))
        await asyncio.wait([running], timeout=0.1)
        assert not running.done()
    # The slot has moved, and nothing was done before.
    assert await running == 3
    await nodes.move(slot, target, source)

    monkeypatch.setattr("streamer.store.client.cluster.PATIENCE_S", 0.05)
    await cluster.call("DEL", other, write=True)
    async with nodes.moving(slot, source, target):
        with pytest.raises(StoreUnavailable) as caught:
            await cluster.call(*command, write=True)
    assert caught.value.words.startswith("its slot does not settle")
    await nodes.move(slot, target, source)
    assert await cluster.call("GET", one) == b"2"


async def test_a_write_whose_reply_is_lost_is_not_repeated(
    nodes: Cluster, cluster: ClusterConnection, until: Until
) -> None:
    key = KEYS[0]
    _, source, _ = await slot_moves(nodes, cluster, key)
    assert await cluster.call("INCR", key, write=True) == 1
    link: Any = await cluster.server_of(key)
    await source.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    others = [("INCR", other) for other in KEYS[1:]]
    running = asyncio.create_task(
        cluster.call_many([("INCR", key), *others], write=True)
    )
    await until(lambda: link._pending)
    try:
        link._connection.abort()
        replies = await running
    finally:
        await source.ask("CLIENT", "UNPAUSE")
    assert isinstance(replies[0], OutcomeUnknown)
    for (_, other), reply in zip(others, replies[1:], strict=True):
        # The other primaries have done their part.
        there = await cluster.server_of(other)
        assert isinstance(reply, OutcomeUnknown) if there is link else reply == 1
    assert await cluster.call("GET", key) == b"1"


async def test_a_cluster_that_is_away_is_told_of_each_node() -> None:
    redis = redis_at("redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(StoreUnavailable) as caught:
        await redis.call("GET", "k")
    for port in (1, 2):
        assert f"127.0.0.1:{port}: Connection refused" in caught.value.words
    assert caught.value.where == "127.0.0.1:1, 127.0.0.1:2 (cluster)"
    assert redis.errors["away"] == 1
    await redis.close()


async def test_writes_are_not_confirmed_without_replicas(
    cluster: ClusterConnection,
) -> None:
    writes = Replicated(cluster, replicas_min=1, timeout_ms=20)
    calls = [ScriptCall(PUT, (key,), ("v", "PX", 60_000)) for key in KEYS]

    replies = await writes.run_many(calls)

    assert {type(reply) for reply in replies} == {OutcomeUnknown}
    assert await cluster.call_many([("GET", key) for key in KEYS]) == [b"v"] * 40
    assert (
        await cluster.call_many(
            [("EXISTS", cluster.keys.fence_of(n)) for n in range(256)]
        )
        == [0] * 256
    )


async def test_a_confirmed_write_follows_its_slot(
    nodes: Cluster, cluster: ClusterConnection
) -> None:
    writes = Replicated(cluster, replicas_min=0, timeout_ms=100)
    key = KEYS[0]
    slot, source, target = await slot_moves(nodes, cluster, key)
    call = ScriptCall(PUT, (key,), ("v", "PX", 60_000))
    await nodes.move(slot, source, target)
    try:
        (reply,) = await writes.run_many([call])
        assert not isinstance(reply, Exception)
        assert await target.ask("GET", key) == b"v"
    finally:
        await nodes.move(slot, target, source)
    running = None
    async with nodes.moving(slot, source, target):
        # Neither primary could confirm it meanwhile.
        running = asyncio.create_task(writes.run_many([call]))
        await asyncio.wait([running], timeout=0.1)
        assert not running.done()
    (reply,) = await running
    await nodes.move(slot, target, source)
    assert not isinstance(reply, Exception)


async def test_a_fence_is_in_a_slot_of_the_primary(
    cluster: ClusterConnection,
) -> None:
    await cluster.call("PING")
    for server in await cluster.servers():
        link: Any = server
        first, again = link.own_key(), link.own_key()
        other = link.own_key(other=True)
        assert first == again != other
        for key in (first, other):
            assert await cluster.server_of(key) is server


async def test_the_map_is_read_once_for_all_callers(nodes: Cluster) -> None:
    asked = 0

    class Counting(ClusterAddress):
        async def _ask(self, node: Any) -> Any:
            nonlocal asked
            asked += 1
            return await super()._ask(node)

    redis = redis_at(nodes.url)
    assert isinstance(redis, ClusterConnection)
    counting = Counting(redis.cluster._url)
    one, two = ClusterConnection(counting), ClusterConnection(counting)

    await asyncio.gather(*(it.call("GET", key) for key in KEYS for it in (one, two)))

    assert asked == 1
    for it in (redis, one, two):
        await it.close()


async def test_closing_leaves_no_task(cluster: ClusterConnection) -> None:
    before = asyncio.all_tasks()
    await cluster.call_many([("GET", key) for key in KEYS])
    # The map may be read again: a link that is lost asks for that.
    cluster.cluster._back_off.reset()

    await cluster.close()

    assert asyncio.all_tasks() == before


async def test_a_map_whose_reading_was_ended_is_read_again(nodes: Cluster) -> None:
    address = redis_at(nodes.url).address
    assert isinstance(address, ClusterAddress)
    address.suspect()
    await address.close()

    address._back_off.reset()

    assert (await address.slots()).shards


async def test_a_link_to_a_former_primary_keeps_no_connection(
    cluster: ClusterConnection,
) -> None:
    await cluster.call("PING")
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while packet := await reader.read(65_536):
            if b"INFO" in packet:
                writer.write(b"+OK\r\n$0\r\n\r\n")
            else:
                writer.write(b"+PONG\r\n")
        ended.set()

    async with Listener(serve) as listener:
        link = cluster.link(Place("127.0.0.1", listener.port))
        call = asyncio.create_task(link.call("PING"))
        await asyncio.sleep(0)
        assert link._connecting is not None

        cluster._drop_former()  # As when the map changes.

        with pytest.raises(StoreUnavailable) as caught:
            await call
        assert caught.value.words == "the server has no slots any longer"
        async with asyncio.timeout(60):
            await ended.wait()


async def test_a_former_primary_that_is_away_is_no_fault(nodes: Cluster) -> None:
    faults = StoreFaults()
    redis = redis_at(nodes.url, faults=faults)
    assert isinstance(redis, ClusterConnection)
    await redis.call("PING")
    link = redis.link(Place("127.0.0.1", 1))
    call = asyncio.create_task(link.call("PING"))
    await asyncio.sleep(0)
    assert link._connecting is not None

    redis._drop_former()  # As when the map changes.

    with pytest.raises(StoreUnavailable):
        await call
    assert not faults.is_failing(f"connection to {link.place}")
    await redis.close()


def test_a_cluster_has_a_place_for_messages() -> None:
    assert str(Place("::1", 7)) == "[::1]:7"
    assert "redis://" in NO_CLUSTER
    assert not isinstance(redis_at("redis://a"), ClusterConnection)
    assert isinstance(redis_at("redis+cluster://a"), RedisConnection)

"""The record of a deployment in a store: begun once, and never over other data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.exceptions import ResponseError

from streamer.core.deployment import FORMAT, LEVEL, Deployment
from streamer.errors import StoreUnavailable, StoreUnfit
from streamer.model import App, Log, Player
from streamer.store import deployment as deployment_module
from streamer.store.access.apps import Apps
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.deployment import (
    enter_deployment,
    find_deployment,
    raise_level,
    read_levels,
    restore_deployment,
)
from streamer.store.logs.inbox import Inbox
from streamer.store.presence.leases import Leases


@pytest.fixture
async def redis(any_store: str) -> AsyncIterator[RedisConnection]:
    """Yield a connection to a store with nothing in it, not even a record."""
    redis = RedisConnection(any_store)
    await redis.call("FLUSHALL")
    yield redis
    await redis.call("FLUSHALL")
    await redis.close()


async def test_the_first_node_begins_the_deployment(redis: RedisConnection) -> None:
    assert await find_deployment(redis) is None

    begun = await enter_deployment(redis, "production")

    assert begun == await find_deployment(redis) == await enter_deployment(redis)
    assert (begun.format, begun.name) == (FORMAT, "production")
    stored = await redis.call("GET", "streamer:deployment")
    assert msgspec.json.decode(stored) == msgspec.to_builtins(begun)
    assert await redis.call("TTL", "streamer:deployment") == -1


async def test_to_look_for_a_deployment_writes_nothing(redis: RedisConnection) -> None:
    await find_deployment(redis, "production")

    assert await redis.call("DBSIZE") == 0


async def test_nodes_that_begin_at_the_same_time_begin_one(
    redis: RedisConnection,
) -> None:
    nodes = [redis_at(redis.address) for _ in range(8)]

    entered = await asyncio.gather(*map(enter_deployment, nodes))

    assert len(set(entered)) == 1
    for node in nodes:
        await node.close()


async def test_of_two_names_at_the_same_time_one_is_refused(
    redis: RedisConnection,
) -> None:
    other = redis_at(redis.address)

    outcomes = await asyncio.gather(
        enter_deployment(redis, "a"),
        enter_deployment(other, "b"),
        return_exceptions=True,
    )

    assert sorted(isinstance(outcome, StoreUnfit) for outcome in outcomes) == [
        False,
        True,
    ]
    await other.close()


async def test_a_node_of_another_name_is_refused_in_one_line(
    redis: RedisConnection,
) -> None:
    begun = await enter_deployment(redis, "production")

    with pytest.raises(StoreUnfit) as refused:
        await enter_deployment(redis, "staging")

    assert str(refused.value) == (
        "unsuitable store: the namespace 'streamer' of the store holds the deployment "
        f"'production' (id {begun.id}), and the setting `deployment` of this node is "
        "'staging': correct it, or the URL or namespace of the store"
    )


async def test_a_higher_format_is_refused_with_the_version_that_reads_it(
    redis: RedisConnection,
) -> None:
    await redis.call(
        "SET", "streamer:deployment", b'{"format":3,"id":7,"version":"1.4.0"}'
    )

    for look in (find_deployment, enter_deployment):
        with pytest.raises(StoreUnfit, match=r"format 3.*install streamer 1\.4\.0 or"):
            await look(redis)


async def test_a_higher_level_is_refused_with_the_version_that_reads_it(
    redis: RedisConnection,
) -> None:
    record = b'{"format":2,"id":"x","level":%d,"raised_by":"1.4.0"}' % (LEVEL + 1)
    await redis.call("SET", "streamer:deployment", record)

    for look in (find_deployment, enter_deployment):
        with pytest.raises(StoreUnfit) as refused:
            await look(redis)
        assert (
            f"has level {LEVEL + 1} of store format 2, and this version reads level "
            f"{LEVEL}: install streamer 1.4.0 or later" in str(refused.value)
        )


async def of_an_older_version(redis: RedisConnection) -> Deployment:
    """Begin a deployment as a version did that knew no levels."""
    record = b'{"format":2,"id":"x","name":"","version":"0.1","mood":"calm"}'
    await redis.call("SET", "streamer:deployment", record)
    found = await find_deployment(redis)
    assert found is not None
    assert found.level == redis.terms.level == 0
    return found


async def test_the_level_rises_when_the_last_older_node_has_left(
    redis: RedisConnection,
) -> None:
    found = await of_an_older_version(redis)
    assert await raise_level(redis, found) == found  # There is no node at all.
    this = Leases(redis, leases_max=1)
    await this.beat()
    seconds, _ = await redis.call("TIME")
    await redis.call("ZADD", redis.keys.nodes, int(seconds) * 1000, "older")

    assert await raise_level(redis, found) == found
    assert await read_levels(redis) == {this.node.encode(): LEVEL, b"older": 0}
    assert redis.terms.level == 0

    await redis.call("ZREM", redis.keys.nodes, "older")
    raised = await raise_level(redis, found)

    assert (raised.level, raised.id) == (LEVEL, found.id)
    assert await find_deployment(redis) == raised
    assert redis.terms.level == LEVEL
    # What another version has written there is not lost.
    stored = msgspec.json.decode(await redis.call("GET", "streamer:deployment"))
    assert stored["mood"] == "calm"
    # Once more changes nothing.
    assert await raise_level(redis, raised) == raised


async def test_a_crashed_older_node_counts_for_a_minute(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await of_an_older_version(redis)
    await Leases(redis, leases_max=1).beat()
    seconds, _ = await redis.call("TIME")
    beaten_ms = int(seconds) * 1000 - 30_000
    await redis.call("ZADD", redis.keys.nodes, beaten_ms, "older")
    assert (await raise_level(redis, found)).level == 0

    monkeypatch.setattr(deployment_module, "SURE_MS", 29_000)

    assert (await raise_level(redis, found)).level == LEVEL


async def test_a_record_that_has_changed_meanwhile_keeps_its_level(
    redis: RedisConnection,
) -> None:
    found = await of_an_older_version(redis)
    await Leases(redis, leases_max=1).beat()
    await redis.call("SET", "streamer:deployment", b'{"format":2,"id":"y"}')

    assert await raise_level(redis, found) == found

    other = await find_deployment(redis)
    assert other is not None
    assert (other.id, other.level) == ("y", 0)


async def test_a_node_that_leaves_leaves_no_level(redis: RedisConnection) -> None:
    node = Leases(redis, leases_max=1)
    await node.beat()
    await redis.call("HSET", redis.keys.node_levels, "forgotten", 1)

    await node.beat()
    assert await redis.call("HKEYS", redis.keys.node_levels) == [node.node.encode()]

    await node.leave()
    assert await redis.call("EXISTS", redis.keys.node_levels) == 0


@pytest.mark.parametrize("value", [b"", b"yes", b"{}"])
async def test_a_record_that_is_none_is_refused(
    redis: RedisConnection, value: bytes
) -> None:
    await redis.call("SET", "streamer:deployment", value)

    with pytest.raises(StoreUnfit, match="streamer:deployment is not the record"):
        await enter_deployment(redis)


async def test_a_record_of_another_type_is_refused(redis: RedisConnection) -> None:
    await redis.call("HSET", "streamer:deployment", "format", 2)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await enter_deployment(redis)


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", "streamer:apps", "demo", "{}"),
        ("HSET", "streamer:keys", "0" * 64, "{}"),
        ("HSET", "{streamer:apps}:audiences", "x", "demo"),
        ("XADD", "{19}:log:demo:ann", "1-1", "t", "1"),
        ("ZADD", "{7}:due", 1, "demo"),
        ("XADD", "streamer:{19}:log:demo:ann", "1-1", "t", "1"),
    ],
)
async def test_data_without_a_record_are_of_format_1(
    redis: RedisConnection, command: tuple[str, ...]
) -> None:
    await redis.call(*command)

    for look in (find_deployment, enter_deployment):
        with pytest.raises(StoreUnfit) as refused:
            await look(redis)
        assert str(refused.value) == (
            "unsuitable store: the namespace 'streamer' of the store has store format "
            "1, which no release has written, and this version reads format 2: use an "
            "empty database, or another namespace"
        )
    assert await redis.call("DBSIZE") == 1


async def test_another_namespace_or_database_is_free_of_format_1(
    redis: RedisConnection,
) -> None:
    await redis.call("HSET", "streamer:apps", "demo", "{}")
    await redis.call("XADD", "{19}:log:demo:ann", "1-1", "t", "1")
    others = [
        redis_at(redis.address, namespace="game"),
        RedisConnection(f"unix://{redis.address.where}?db=1"),
    ]

    entered = [await enter_deployment(other) for other in others]

    assert entered[0].id != entered[1].id
    for other in others:
        await other.close()


async def test_what_other_programs_store_does_not_matter(
    redis: RedisConnection,
) -> None:
    for name in ("celery", "streamer:cache:1", "{19}:basket", "game:{1}:log:x:y"):
        await redis.call("SET", name, "x")

    assert await enter_deployment(redis)


async def test_what_running_nodes_write_anew_does_not_matter(
    redis: RedisConnection,
) -> None:
    await redis.call("ZADD", "streamer:nodes", 1, "node")
    await redis.call("SET", "streamer:fence", "")
    await redis.call("HSET", "streamer:{19}:lease:demo:ann", "node:1", "")

    assert await enter_deployment(redis)


async def test_a_store_with_a_record_and_data_is_entered(
    redis: RedisConnection,
) -> None:
    begun = await enter_deployment(redis)
    await Apps(redis).create(App("demo"))
    await Inbox(redis).append(Log(App("demo"), Player("ann")), [b"{}"])

    assert await enter_deployment(redis) == begun


async def test_a_large_store_of_others_is_looked_at_in_bounded_steps(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment_module, "SAMPLE_KEYS", 300)
    monkeypatch.setattr(deployment_module, "SCAN_COUNT", 100)
    await redis.call_many([("SET", f"other:{i}", "x") for i in range(2_000)])
    await redis.call("CONFIG", "RESETSTAT")

    await enter_deployment(redis)

    stats = bytes(await redis.call("INFO", "commandstats"))
    assert b"cmdstat_scan:calls=3," in stats


async def test_a_user_who_may_not_scan_begins_a_deployment(
    redis: RedisConnection,
) -> None:
    await redis.call("ACL", "SETUSER", "guest", "on", "nopass", "~*", "+@all", "-scan")
    guest = RedisConnection(f"unix://guest@{redis.address.where}")

    try:
        assert await enter_deployment(guest)
    finally:
        await guest.close()
        await redis.call("ACL", "DELUSER", "guest")


async def test_data_that_appear_with_their_record_meanwhile_are_no_format_1(
    redis: RedisConnection,
) -> None:
    """Another node begins the deployment between the look at the record and at keys."""

    class Late(RedisConnection):
        async def call_many(self, commands, *, write=False):  # type: ignore[no-untyped-def]
            if ("EXISTS", self.keys.apps) in commands:
                await enter_deployment(redis)
                await Apps(redis).create(App("demo"))
            return await super().call_many(commands, write=write)

    late = Late(redis.address)

    assert await enter_deployment(late) == await find_deployment(redis)
    await late.close()


async def test_a_lost_record_is_restored_once(redis: RedisConnection) -> None:
    begun = await enter_deployment(redis, "production")
    await redis.call("FLUSHALL")

    assert await restore_deployment(redis, begun) == begun
    assert await restore_deployment(redis, begun) == begun
    assert await find_deployment(redis) == begun


async def test_a_lost_record_is_not_restored_over_another(
    redis: RedisConnection,
) -> None:
    begun = await enter_deployment(redis)
    await redis.call("FLUSHALL")
    other = await enter_deployment(redis)

    assert await restore_deployment(redis, begun) == other


async def test_without_a_store_there_is_no_deployment() -> None:
    redis = RedisConnection("unix:///nowhere")

    for look in (find_deployment, enter_deployment):
        with pytest.raises(StoreUnavailable):
            await look(redis)

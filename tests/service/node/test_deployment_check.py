"""A running node and the deployment of its store: another one, or none any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from streamer.config import Config
from streamer.core.deployment import LEVEL, Deployment
from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.model import App, Log, Player
from streamer.service.node import deployment_check, store_watch
from streamer.service.node.deployment_check import DeploymentCheck
from streamer.service.node.store_watch import StoreWatch
from streamer.service.streams.catch_up import PROBE_APP
from streamer.store.access.rates import Rates
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.deployment import enter_deployment, find_deployment
from streamer.store.logs.inbox import Inbox
from streamer.store.presence.leases import Leases

from ...conftest import GUARD_S, Until
from ...e2e.processes import DURABLE, StoreProcess


@pytest.fixture(autouse=True)
async def nothing_is_stored(redis: RedisConnection) -> None:
    await redis.call("FLUSHALL")


async def test_a_node_begins_a_deployment_or_works_on_the_one_there_is(
    redis: RedisConnection,
) -> None:
    first, second = DeploymentCheck(redis, "eu"), DeploymentCheck(redis, "")

    assert (await first.judge()).verdict == (await second.judge()).verdict == "ok"

    found = await find_deployment(redis)
    assert found is not None
    assert found.name == "eu"


async def test_a_node_that_meets_another_deployment_is_not_ready(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    watch = StoreWatch(redis, Config())
    await watch.check()
    assert watch.unready_reason() is None
    await redis.call("FLUSHALL")
    other = await enter_deployment(redis)

    await watch.check()
    await watch.check()

    assert f"the store holds {other}, and this node is of" in (
        watch.unready_reason() or ""
    )
    assert caplog.text.count("this node is of") == 1


async def test_a_node_is_ready_again_when_its_own_deployment_is_back(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    watch = StoreWatch(redis, Config())
    await watch.check()
    record = await redis.call("GET", redis.keys.deployment)
    await redis.call("DEL", redis.keys.deployment)
    await enter_deployment(redis)
    await watch.check()
    await redis.call("SET", redis.keys.deployment, record)

    await watch.check()

    assert watch.unready_reason() is None
    assert "resolved: the store holds" in caplog.text


async def test_a_store_that_was_emptied_gets_the_record_back(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    check = DeploymentCheck(redis, "")
    await check.judge()
    before = await find_deployment(redis)
    await redis.call("FLUSHALL")
    # What other parts of the node have stored meanwhile.
    await redis.call("HSET", redis.keys.apps, "demo", "{}")

    finding = await check.judge()

    assert finding.verdict == "ok"
    assert await find_deployment(redis) == before
    assert "lost the record" in caplog.text


async def test_a_check_whose_record_is_unavailable_is_repeated(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def outcome_unknown(redis: RedisConnection, name: str) -> Deployment:
        raise OutcomeUnknown

    watch = StoreWatch(redis, Config())
    with monkeypatch.context() as patched:
        patched.setattr(deployment_check, "enter_deployment", outcome_unknown)
        with pytest.raises(StoreUnavailable):
            await watch.check()
    assert watch.unready_reason() is not None

    await watch.check()

    assert watch.unready_reason() is None


async def test_a_replica_without_a_record_is_told_to_be_a_replica(
    redis: RedisConnection,
) -> None:
    await redis.call("REPLICAOF", "127.0.0.1", "1")
    # It leaves the replica; `redis`, which writes nothing, does not.
    node = redis_at(redis.address)
    watch = StoreWatch(node, Config())

    try:
        await watch.check()
    finally:
        await redis.call("REPLICAOF", "NO", "ONE")
        await node.close()

    assert watch.unready_reason() == "the store is a read-only replica"


@pytest.mark.parametrize(
    ("record", "name", "problem"),
    [
        (b'{"format":3,"id":"x"}', "", "store format 3"),
        (b'{"format":2,"id":"x","name":"a"}', "b", "of this node is 'b'"),
        (b"x", "", "is not the record"),
    ],
)
async def test_a_deployment_that_the_start_would_refuse_makes_a_node_unready(
    redis: RedisConnection, record: bytes, name: str, problem: str
) -> None:
    await redis.call("SET", redis.keys.deployment, record)
    watch = StoreWatch(redis, Config(deployment=name))

    await watch.check()

    assert problem in (watch.unready_reason() or "")


@pytest.mark.parametrize(
    "record",
    [
        b'{"format":3,"id":"x","version":"9"}',
        b'{"format":2,"id":"ID","level":99,"raised_by":"9"}',
        b'{"format":2,"id":"other"}',
    ],
)
async def test_a_node_writes_nothing_where_it_must_not_work(
    redis: RedisConnection, record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    node = redis_at(redis.address)
    watch, inbox = StoreWatch(node, Config()), Inbox(node)
    log = Log(App("demo"), Player("ann"))
    await watch.check()
    await inbox.append(log, [b'"title":"x"}'])
    own = await redis.call("GET", redis.keys.deployment)
    id_ = msgspec.json.decode(own)["id"].encode()
    await redis.call("SET", redis.keys.deployment, record.replace(b"ID", id_))

    await watch.check()

    before = await everything(redis)
    problem = watch.unready_reason()
    assert problem
    assert caplog.text.count(problem) == 1
    writes: list[Callable[[], Awaitable[object]]] = [
        lambda: inbox.append(log, [b'"title":"y"}']),
        lambda: Leases(node, leases_max=1).beat(),
        lambda: Rates(node).count(log.app, "search", per_s=1),
        lambda: node.call("SET", "a key", "", write=True),
    ]
    for write in writes:
        with pytest.raises(StoreUnavailable) as refused:
            await write()
        assert problem in refused.value.reason
    await watch.check()
    assert await everything(redis) == before

    await redis.call("SET", redis.keys.deployment, own)
    await watch.check()

    assert watch.unready_reason() is None
    await inbox.append(log, [b'"title":"z"}'])
    await node.close()


async def everything(redis: RedisConnection) -> dict[bytes, bytes]:
    """Return all keys and what they hold."""
    keys = sorted(await redis.call("KEYS", "*"))
    return {key: await redis.call("DUMP", key) for key in keys}


async def test_a_running_node_notices_another_record_between_its_checks(
    redis: RedisConnection, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No regular check is due before `until` has given up.
    monkeypatch.setattr(store_watch, "CHECK_S", 10 * GUARD_S)
    monkeypatch.setattr(store_watch, "CHECK_EVERYSEC_S", 10 * GUARD_S)
    node = redis_at(redis.address)
    watch = StoreWatch(node, Config())
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.unready_reason() is None)
        own = await redis.call("GET", redis.keys.deployment)
        await redis.call("SET", redis.keys.deployment, b'{"format":3,"id":"x"}')

        await until(lambda: "store format 3" in (watch.unready_reason() or ""))

        await redis.call("SET", redis.keys.deployment, own)
        await until(lambda: watch.unready_reason() is None)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await node.close()


async def test_a_node_writes_nothing_before_it_has_read_the_record(
    tmp_path: Path, until: Until
) -> None:
    """The store is unavailable when the node starts."""
    store = StoreProcess(tmp_path, *DURABLE)
    node = redis_at(store.url)
    watch = StoreWatch(node, Config())
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: node.terms.refusal)
        with pytest.raises(StoreUnavailable, match="unavailable"):
            await Leases(node, leases_max=1).beat()

        await store.start()
        await until(lambda: watch.unready_reason() is None)

        await Leases(node, leases_max=1).beat()
    finally:
        running.cancel()
        await asyncio.wait([running])
        await node.close()
        store.discard()


async def test_the_level_rises_with_the_check_after_the_last_older_node_has_left(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.call("SET", redis.keys.deployment, b'{"format":2,"id":"x"}')
    await redis.call("ZADD", redis.keys.nodes, int(time.time() * 1000), "older")
    await Leases(redis, leases_max=1).beat()
    watch = StoreWatch(redis, Config())

    await watch.check()
    assert redis.terms.level == 0
    await redis.call("ZREM", redis.keys.nodes, "older")
    await watch.check()

    assert redis.terms.level == LEVEL
    assert f"all nodes read level {LEVEL} of store format 2" in caplog.text


async def test_a_node_does_not_take_its_own_probes_for_data(
    redis: RedisConnection,
) -> None:
    """The store was unavailable at the start, and the probe came before the check."""
    log = Log(PROBE_APP, Player("node"))
    await Inbox(redis).append(log, [b'"type":"probe"}'])
    await redis.call("ZADD", redis.keys.nodes, 1, "node")
    watch = StoreWatch(redis, Config())

    await watch.check()

    assert watch.unready_reason() is None


async def test_data_without_a_record_make_a_node_unready(
    redis: RedisConnection,
) -> None:
    await redis.call("HSET", redis.keys.apps, "demo", "{}")
    watch = StoreWatch(redis, Config())

    await watch.check()

    assert "store format 1" in (watch.unready_reason() or "")


async def test_a_record_that_may_not_be_read_is_told_with_the_words_of_the_store(
    redis: RedisConnection, store_url: str
) -> None:
    await redis.call("ACL", "SETUSER", "guest", "on", "nopass", "~*", "+@all", "-get")
    guest = RedisConnection(store_url.replace("unix://", "unix://guest@"))
    watch = StoreWatch(guest, Config())

    try:
        await watch.check()
    finally:
        await guest.close()
        await redis.call("ACL", "DELUSER", "guest")

    assert "NOPERM" in (watch.unready_reason() or "")

"""Leases of nodes that start, run and crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from streamer.core.streams.views import View
from streamer.errors import Limit, LimitReached, OutcomeUnknown, StoreUnavailable
from streamer.model import Log, Player, Position, Topic, everyone_log, topic_log
from streamer.store.client.connection import RedisConnection, Reply, ScriptCall
from streamer.store.client.faults import StoreFaults
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.logs.views import PlayerViews, Views
from streamer.store.presence import leases as leases_module
from streamer.store.presence.leases import ALIVE_MS, HEARTBEAT_S, Lease, Leases

from ...conftest import Until
from ..conftest import Proxy
from ..recording import RecordingHandler


@pytest.fixture
def node(redis: RedisConnection) -> Leases:
    return Leases(redis, leases_max=2)


@pytest.fixture
def other(redis: RedisConnection) -> Leases:
    return Leases(redis, leases_max=2)


async def test_heartbeats_go_on_after_the_store_has_refused_them(
    redis: RedisConnection, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "RETRY_S", 0.01)
    faults = StoreFaults()
    node = Leases(redis, leases_max=2, faults=faults)
    await redis.call("SET", redis.keys.nodes, "not a sorted set")
    running = asyncio.create_task(node.run())
    try:
        await until(lambda: "heartbeat: WRONGTYPE" in (faults.reason or ""))

        await redis.call("DEL", redis.keys.nodes)

        await until(lambda: faults.reason is None)
        assert await redis.call("ZSCORE", redis.keys.nodes, node.node)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_lease_whose_release_was_refused_is_released_later(
    redis: RedisConnection, node: Leases, log: Log
) -> None:
    lease = await acquire(node, log)
    await redis.call("RENAME", redis.keys.lease(log), "aside")
    await redis.call("SET", redis.keys.lease(log), "not a hash")

    await node.release(lease)

    await redis.call("RENAME", "aside", redis.keys.lease(log))
    await node.release(lease)
    assert await held(redis, log) == 0


async def acquire(node: Leases, log: Log, instance: str = "") -> Lease:
    lease, _ = await node.acquire(log, node.new_connection(), instance=instance)
    return lease


async def held(redis: RedisConnection, log: Log) -> int:
    count: int = await redis.call("HLEN", keys_of().lease(log))
    return count


async def none_held(redis: RedisConnection, log: Log) -> None:
    async with asyncio.timeout(60):
        while await held(redis, log):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def one_held(redis: RedisConnection, log: Log) -> None:
    async with asyncio.timeout(60):
        while not await held(redis, log):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def die(redis: RedisConnection, node: Leases) -> None:
    """Make the node's last heartbeat as old as that of a crashed node."""
    score = float(await redis.call("ZSCORE", keys_of().nodes, node.node))
    await redis.call("ZADD", keys_of().nodes, str(int(score - ALIVE_MS - 1)), node.node)


async def test_the_number_of_leases_is_limited(
    node: Leases, other: Leases, log: Log
) -> None:
    await acquire(node, log)
    await acquire(other, log)

    for one in (node, other):
        with pytest.raises(LimitReached) as refused:
            await acquire(one, log)
        assert refused.value.limit is Limit.LISTENERS_PER_PLAYER
        assert refused.value.retry_after_s > 0
    await acquire(node, Log(log.app, Player("another")))


async def test_the_limit_holds_for_concurrent_calls(
    node: Leases, other: Leases, redis: RedisConnection, log: Log
) -> None:
    outcomes = await asyncio.gather(
        *(acquire(one, log) for one in (node, other) for _ in range(20)),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 2
    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 38
    assert await held(redis, log) == 2


async def test_a_released_lease_is_free_once(
    node: Leases, redis: RedisConnection, log: Log
) -> None:
    first, second = await acquire(node, log), await acquire(node, log)

    await node.release(first)
    await node.release(first)

    assert await held(redis, log) == 1
    await acquire(node, log)
    with pytest.raises(LimitReached):
        await acquire(node, log)
    await node.release(second)
    assert await held(redis, log) == 1


async def test_the_leases_of_a_dead_node_are_void(
    node: Leases, other: Leases, redis: RedisConnection, log: Log
) -> None:
    await acquire(node, log)
    await acquire(node, log)
    with pytest.raises(LimitReached):
        await acquire(other, log)
    await die(redis, node)
    await other.beat()

    await acquire(other, log)

    assert await held(redis, log) == 1


async def test_a_node_that_leaves_releases_all_leases_at_once(
    node: Leases, other: Leases, log: Log
) -> None:
    await acquire(node, log)
    await acquire(node, log)

    await node.leave()

    await acquire(other, log)
    await acquire(other, log)


async def test_the_leases_of_a_new_node_are_not_void(
    node: Leases, other: Leases, log: Log
) -> None:
    # `node` read the list of live nodes before `other` was started.
    await acquire(node, Log(log.app, Player("another")))
    await acquire(other, log)
    await acquire(other, log)

    with pytest.raises(LimitReached):
        await acquire(node, log)


async def test_an_old_list_of_nodes_admits_no_excess_connection(
    redis: RedisConnection, log: Log
) -> None:
    nodes = [Leases(redis, leases_max=3) for _ in range(4)]
    for node in nodes:
        await acquire(node, Log(log.app, Player("another-" + node.node)))

    outcomes = await asyncio.gather(
        *(acquire(node, log) for node in nodes for _ in range(3)),
        return_exceptions=True,
    )

    assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 3


async def test_a_lease_needs_a_heartbeat_first(
    node: Leases, redis: RedisConnection, log: Log
) -> None:
    await acquire(node, log)

    assert await redis.call("ZSCORE", keys_of().nodes, node.node) is not None


@pytest.fixture
async def recorder(
    store_url: str, log: Log, until: Until
) -> AsyncIterator[RecordingHandler]:
    recorder = RecordingHandler()
    pubsub = PubSub(store_url, recorder)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    await pubsub.subscribe(log)
    yield recorder
    assert not recorder.entries
    assert not recorder.reads
    running.cancel()
    await asyncio.wait([running])


async def test_a_returning_instance_takes_over_its_lease(
    node: Leases,
    other: Leases,
    redis: RedisConnection,
    log: Log,
    recorder: RecordingHandler,
    until: Until,
) -> None:
    first = await acquire(node, log, "phone")
    await acquire(node, log, "console")
    with pytest.raises(LimitReached):
        await acquire(other, log, "tablet")

    second = await acquire(other, log, "phone")
    third = await acquire(other, log, "phone")

    await until(lambda: len(recorder.replaced) == 2)
    assert recorder.replaced == [first.connection, second.connection]
    assert await held(redis, log) == 2
    # The replaced connection releases its lease late, which has no effect.
    await node.release(first)
    assert await held(redis, log) == 2
    await other.release(third)
    assert await held(redis, log) == 1


async def test_leases_without_an_instance_replace_nothing(
    node: Leases, redis: RedisConnection, log: Log
) -> None:
    await acquire(node, log)
    await acquire(node, log)

    assert await held(redis, log) == 2


async def test_an_instance_with_two_leases_is_reduced_to_one(
    node: Leases,
    redis: RedisConnection,
    log: Log,
    recorder: RecordingHandler,
    until: Until,
) -> None:
    # An old list of nodes may lack the node of the first lease.
    await node.beat()
    for connection in ("a", "b"):
        await redis.call(
            "HSET", keys_of().lease(log), f"{node.node}:{connection}", "phone"
        )

    lease = await acquire(node, log, "phone")

    await until(lambda: len(recorder.replaced) == 2)
    assert sorted(recorder.replaced) == ["a", "b"]
    assert await redis.call("HKEYS", keys_of().lease(log)) == [
        f"{node.node}:{lease.connection}".encode()
    ]


async def test_a_lease_released_without_a_store_is_released_later(
    proxy: Proxy, redis: RedisConnection, log: Log
) -> None:
    node = Leases(RedisConnection(proxy.url), leases_max=2)
    lease = await acquire(node, log)
    await proxy.close()

    await node.release(lease)

    assert await held(redis, log) == 1
    await proxy.open()
    running = asyncio.create_task(node.run())
    await none_held(redis, log)
    running.cancel()
    await asyncio.wait([running])
    await node._redis.close()


async def test_no_lease_is_acquired_without_a_store(proxy: Proxy, log: Log) -> None:
    node = Leases(RedisConnection(proxy.url), leases_max=2)
    await proxy.close()

    with pytest.raises(StoreUnavailable):
        await acquire(node, log)
    await node.release(Lease(log, "c"))
    await node.leave()


@pytest.mark.parametrize("what", ["lost", "cancelled"])
async def test_a_lease_whose_reply_was_lost_does_not_leak(
    proxy: Proxy, redis: RedisConnection, log: Log, what: str
) -> None:
    node = Leases(RedisConnection(proxy.url), leases_max=2)
    await node.beat()
    await node.release(await acquire(node, log))
    if what == "lost":
        proxy.cut = lambda asked, reply: b":lease:" in asked and b"EVAL" in asked
        with pytest.raises(StoreUnavailable):
            await acquire(node, log)
        proxy.cut = lambda asked, reply: False
    else:
        proxy.flowing.clear()
        taking = asyncio.create_task(acquire(node, log))
        await one_held(redis, log)
        taking.cancel()
        await asyncio.wait([taking])
        proxy.flowing.set()
    assert await held(redis, log) == 1

    running = asyncio.create_task(node.run())
    await none_held(redis, log)

    running.cancel()
    await asyncio.wait([running])
    await node._redis.close()


async def test_a_cancelled_release_is_still_sent(
    proxy: Proxy, redis: RedisConnection, log: Log
) -> None:
    node = Leases(RedisConnection(proxy.url), leases_max=2)
    lease = await acquire(node, log)
    proxy.flowing.clear()
    dropping = asyncio.create_task(node.release(lease))
    await asyncio.sleep(0)
    dropping.cancel()
    await asyncio.wait([dropping])
    proxy.flowing.set()

    await node._release_all()

    assert await held(redis, log) == 0
    await node._redis.close()


async def test_acquiring_twice_is_one_lease(
    node: Leases, redis: RedisConnection, log: Log
) -> None:
    # As a repetition after a lost reply does.
    for _ in range(3):
        await node.acquire(log, "the-same")

    assert await held(redis, log) == 1


async def test_keys_of_leases_expire(
    node: Leases, redis: RedisConnection, log: Log
) -> None:
    await acquire(node, log)

    assert (
        24 * 3_600_000
        < await redis.call("PTTL", keys_of().lease(log))
        <= 25 * 3_600_000
    )


async def test_nodes_without_heartbeats_are_deleted(
    node: Leases, redis: RedisConnection
) -> None:
    await redis.call("ZADD", keys_of().nodes, "1000", "ancient")

    await node.beat()

    assert await redis.call("ZRANGE", keys_of().nodes, "0", "-1") == [
        node.node.encode()
    ]


async def test_an_unknown_outcome_is_no_lease(node: Leases, log: Log) -> None:
    async def unknown(*_: object, **__: object) -> list[Exception]:
        return [OutcomeUnknown()]

    await node.beat()
    node._redis.run_many = unknown  # type: ignore[method-assign]

    with pytest.raises(StoreUnavailable):
        await acquire(node, log)

    assert len(node._to_release) == 1


async def test_a_node_without_heartbeats_writes_its_leases_again(
    redis: RedisConnection, log: Log
) -> None:
    now_s = 0.0
    node = Leases(redis, leases_max=1, monotonic=lambda: now_s)
    other = Leases(redis, leases_max=1)
    await acquire(node, log)
    await die(redis, node)
    intruder = await acquire(other, log)
    await other.release(intruder)
    assert await held(redis, log) == 0

    now_s += ALIVE_MS / 1000 + 1
    running = asyncio.create_task(node.run())
    await one_held(redis, log)
    running.cancel()

    with pytest.raises(LimitReached):
        await acquire(other, log)


async def test_leases_are_written_again_a_few_in_a_packet(
    node: Leases, redis: RedisConnection, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [await acquire(node, log._replace(name=Player(name))) for name in "abcde"]
    for lease in leases:
        await redis.call("DEL", keys_of().lease(lease.log), write=True)
    packets: list[int] = []
    run_many = redis.run_many

    async def counting(calls: Sequence[ScriptCall]) -> list[Reply]:
        packets.append(len(calls))
        if len(packets) == 1:
            node._held.pop(leases[4])  # It is released meanwhile.
        return await run_many(calls)

    monkeypatch.setattr(leases_module, "BATCH", 2)
    monkeypatch.setattr(redis, "run_many", counting)
    monkeypatch.setattr(node, "_monotonic", lambda: 0.0)
    node._renewed_at_s = float("-inf")

    await node._renew_if_due()

    assert packets == [2, 2, 0]
    assert [await held(redis, it.log) for it in leases] == [1, 1, 1, 1, 0]


# Commands in the packet of a lease.

PLACE = Position(7, 1_000, 3, 9)


async def come(
    node: Leases, views: Views, log: Log, *, knowing: bool = True
) -> PlayerViews | None:
    """Acquire a lease; return the player's views if the peek suffices."""
    _, replies = await node.acquire(
        log,
        node.new_connection(),
        newcomer=views.newcomer(PLACE) if knowing else None,
        commands=views.peek(log),
    )
    return views.parse_peek(log, replies)


@pytest.fixture
def views(redis: RedisConnection) -> Views:
    return Views(redis, LogSettings())


async def test_a_new_player_joins_everyone_with_its_first_lease(
    node: Leases, views: Views, redis: RedisConnection, log: Log
) -> None:
    everyone = View(everyone_log(log.app), PLACE)

    assert await come(node, views, log) == PlayerViews([everyone], 0)
    (found,) = await views.read_many([log])
    assert isinstance(found, PlayerViews)
    assert found.views == [everyone]
    assert await redis.call("PTTL", keys_of().views(log)) > 180 * DAY_MS


async def test_a_new_player_joins_later_if_the_position_is_unknown(
    node: Leases, views: Views, redis: RedisConnection, log: Log
) -> None:
    assert await come(node, views, log, knowing=False) is None
    assert await redis.call("EXISTS", keys_of().views(log)) == 0


async def test_a_player_with_a_log_is_not_new(
    node: Leases, views: Views, redis: RedisConnection, log: Log
) -> None:
    await Inbox(redis).append(log, [b"x"])

    assert await come(node, views, log) is None
    assert await redis.call("EXISTS", keys_of().views(log)) == 0


async def test_a_player_with_topics_keeps_its_views(
    node: Leases, views: Views, log: Log
) -> None:
    await views.join(log, topic_log(log.app, Topic("news")), PLACE)

    assert await come(node, views, log) is None
    (found,) = await views.read_many([log])
    assert isinstance(found, PlayerViews)
    assert [view.log.topic for view in found.views] == ["news"]


async def test_a_refused_lease_creates_no_view(
    redis: RedisConnection, views: Views, log: Log
) -> None:
    node = Leases(redis, leases_max=0)

    with pytest.raises(LimitReached):
        await come(node, views, log)

    assert await redis.call("EXISTS", keys_of().views(log)) == 0


async def test_commands_are_repeated_if_the_script_is_sent_as_text(
    node: Leases, views: Views, redis: RedisConnection, log: Log
) -> None:
    await acquire(node, log)
    await redis.call("SCRIPT", "FLUSH")

    assert await come(node, views, Log(log.app, Player("new"))) is not None


async def test_a_damaged_lease_holds_up_no_other(
    redis: RedisConnection,
    node: Leases,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs = [log._replace(name=Player(name)) for name in ("a", "b", "c")]
    leases = [await acquire(node, one) for one in logs]
    await redis.call("SET", redis.keys.lease(logs[1]), "not a hash")
    await redis.call("DEL", redis.keys.lease(logs[2]))

    monkeypatch.setattr(node, "_renewed_at_s", float("-inf"))
    await node._renew_if_due()

    assert await held(redis, logs[2]) == 1
    for lease in leases:
        node.release_soon(lease)
    await node.wait_released()
    assert [await held(redis, logs[i]) for i in (0, 2)] == [0, 0]
    assert not node._to_release
    assert redis.damage.counts == {"heartbeat": 2}


async def test_a_lease_whose_primary_is_away_holds_up_no_other(
    redis: RedisConnection, node: Leases, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [await acquire(node, log._replace(name=Player(name))) for name in "abcdef"]
    away = leases[2]
    run_many = redis.run_many

    async def run_some(calls: Sequence[ScriptCall]) -> list[Reply]:
        is_away = [redis.keys.lease(away.log) in call.keys for call in calls]
        there = [it for it, skip in zip(calls, is_away, strict=True) if not skip]
        replies = iter(await run_many(there))
        failure = StoreUnavailable("one primary is away")
        return [failure if skip else next(replies) for skip in is_away]

    monkeypatch.setattr(leases_module, "BATCH", 2)
    monkeypatch.setattr(redis, "run_many", run_some)
    for lease in leases:
        node.release_soon(lease)
    await node.wait_released()

    held_now = [await held(redis, it.log) for it in leases]
    assert held_now == [int(it is away) for it in leases]
    monkeypatch.undo()
    await node.release(away)
    assert await held(redis, away.log) == 0


async def test_only_the_leases_of_a_primary_that_is_away_are_renewed_again(
    redis: RedisConnection, node: Leases, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [await acquire(node, log._replace(name=Player(name))) for name in "abcdef"]
    away = {redis.keys.lease(leases[i].log) for i in (0, 1, 3, 5)}
    run_many, tried = redis.run_many, []

    async def run_some(calls: Sequence[ScriptCall]) -> list[Reply]:
        tried.append(len(calls))
        there = [it for it in calls if it.keys[0] not in away]
        failure = StoreUnavailable("one primary is away")
        if not there:
            raise failure
        replies = iter(await run_many(there))
        return [failure if it.keys[0] in away else next(replies) for it in calls]

    monkeypatch.setattr(leases_module, "BATCH", 3)
    monkeypatch.setattr(redis, "run_many", run_some)
    monkeypatch.setattr(node, "_monotonic", lambda: 0.0)
    monkeypatch.setattr(node, "_renewed_at_s", float("-inf"))
    for expected in ([3, 3], [3], [3]):
        tried.clear()
        with pytest.raises(StoreUnavailable):
            await node._renew_if_due()
        assert tried == expected

    away.clear()
    tried.clear()
    await node._renew_if_due()
    assert tried == [3, 1]
    await node._renew_if_due()
    assert tried == [3, 1]


async def test_a_lease_is_released_though_many_wait_for_a_primary_that_is_away(
    redis: RedisConnection, node: Leases, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = [await acquire(node, log._replace(name=Player(f"{i}"))) for i in range(20)]
    *away, last = leases
    run_many, there = redis.run_many, {redis.keys.lease(last.log)}

    async def run_some(calls: Sequence[ScriptCall]) -> list[Reply]:
        if there.isdisjoint(it.keys[0] for it in calls):
            raise StoreUnavailable("one primary is away")
        failure = StoreUnavailable("one primary is away")
        replies = iter(await run_many([it for it in calls if it.keys[0] in there]))
        return [next(replies) if it.keys[0] in there else failure for it in calls]

    monkeypatch.setattr(leases_module, "BATCH", 2)
    monkeypatch.setattr(redis, "run_many", run_some)
    for lease in away:
        await node.release(lease)
    await node.release(last)

    assert await held(redis, last.log) == 0
    there.update(redis.keys.lease(it.log) for it in away)
    await node._release_all()
    assert [await held(redis, it.log) for it in away] == [0] * len(away)


async def test_heartbeats_go_on_while_packets_of_leases_take_long(
    redis: RedisConnection, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    node = Leases(redis, leases_max=1, monotonic=lambda: now_s)
    for name in "abcde":
        await acquire(node, log._replace(name=Player(name)))
    beats: list[float] = []
    run_many, beat = redis.run_many, node.beat

    async def slowly(calls: Sequence[ScriptCall], **more: Any) -> list[Reply]:
        nonlocal now_s
        now_s += HEARTBEAT_S - 1
        return await run_many(calls, **more)

    async def counting() -> None:
        beats.append(now_s)
        await beat()

    monkeypatch.setattr(leases_module, "BATCH", 1)
    monkeypatch.setattr(redis, "run_many", slowly)
    monkeypatch.setattr(node, "beat", counting)
    node._renewed_at_s = float("-inf")

    await node._renew_if_due()

    assert beats == [8.0, 20.0]


async def test_leases_are_renewed_while_others_cannot_be_released(
    redis: RedisConnection, node: Leases, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [log._replace(name=Player(name)) for name in ("left", "kept")]
    left, kept = [await acquire(node, it) for it in logs]
    away, run_many = redis.keys.lease(left.log), redis.run_many

    async def run_some(calls: Sequence[ScriptCall], **more: Any) -> list[Reply]:
        if [it.keys[0] for it in calls] == [away]:
            raise StoreUnavailable("one primary is away")
        return await run_many(calls, **more)

    monkeypatch.setattr(redis, "run_many", run_some)
    node.release_soon(left)
    await node.wait_released()
    await redis.call("DEL", redis.keys.lease(kept.log), write=True)
    monkeypatch.setattr(node, "_renewed_at_s", float("-inf"))

    with pytest.raises(StoreUnavailable):
        await node._write_due()

    assert await held(redis, kept.log) == 1
    assert [*node._unreleased] == [left]


async def test_a_takeover_finds_a_node_that_has_just_started(
    redis: RedisConnection, log: Log
) -> None:
    other = Leases(redis, leases_max=5)
    await other.beat()
    one = Leases(redis, leases_max=5)
    await one.beat()  # The other one does not know it yet.
    await one.acquire(log, "first", instance="phone")

    await other.acquire(log, "second", instance="phone")

    held = await redis.call("HKEYS", keys_of().lease(log))
    assert held == [f"{other.node}:second".encode()]

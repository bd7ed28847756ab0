"""Subscriptions: interrupted, shared and churned."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamer.errors import StoreUnavailable
from streamer.model import App, Log, Player
from streamer.store.client import pubsub as pubsub_module
from streamer.store.client import subscriber as subscriber_module
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.server.embedded import Embedded

from ...conftest import Until
from ..conftest import Proxy
from ..recording import RecordingHandler


@pytest.fixture
def recorder() -> RecordingHandler:
    return RecordingHandler()


RunPubSub = Callable[[str], Awaitable[PubSub]]


@pytest.fixture
async def run_pubsub(
    recorder: RecordingHandler, until: Until
) -> AsyncIterator[RunPubSub]:
    running: list[asyncio.Task[None]] = []

    async def run(url: str) -> PubSub:
        pubsub = PubSub(url, recorder)
        running.append(asyncio.create_task(pubsub.run()))
        await until(lambda: pubsub.connected)
        return pubsub

    yield run
    for task in running:
        task.cancel()
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)


@pytest.fixture
async def pubsub(run_pubsub: RunPubSub, store_url: str) -> PubSub:
    return await run_pubsub(store_url)


async def subscribers(redis: RedisConnection, log: Log) -> int:
    _, count = await redis.call("PUBSUB", "SHARDNUMSUB", keys_of().channel(log))
    assert isinstance(count, int)
    return count


async def test_a_confirmed_subscription_receives_every_announcement(
    pubsub: PubSub,
    redis: RedisConnection,
    recorder: RecordingHandler,
    log: Log,
    until: Until,
) -> None:
    inbox = Inbox(redis)
    await pubsub.subscribe(log)

    for _ in range(200):
        await inbox.append(log, [b"x"])

    await until(lambda: len(recorder.offsets.get(log, ())) == 200)
    assert recorder.offsets[log] == list(range(1, 201))
    assert recorder.subscribed == [log]


async def test_many_subscribers_share_one_subscription(
    pubsub: PubSub, redis: RedisConnection, recorder: RecordingHandler, log: Log
) -> None:
    await asyncio.gather(*(pubsub.subscribe(log) for _ in range(20)))

    assert recorder.subscribed == [log]
    assert await subscribers(redis, log) == 1


async def test_subscribing_without_a_connection_fails(
    store_url: str, recorder: RecordingHandler, log: Log
) -> None:
    pubsub = PubSub(store_url, recorder)

    with pytest.raises(StoreUnavailable):
        await pubsub.subscribe(log)

    pubsub.unsubscribe(log)


async def test_pending_subscribers_fail_with_the_connection(
    run_pubsub: RunPubSub, proxy: Proxy, log: Log
) -> None:
    pubsub = await run_pubsub(proxy.url)
    proxy.flowing.clear()
    waiting = [asyncio.create_task(pubsub.subscribe(log)) for _ in range(3)]
    await asyncio.sleep(0)

    proxy.cut_all()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3


async def test_a_cancelled_subscriber_does_not_cancel_the_others(
    run_pubsub: RunPubSub, proxy: Proxy, log: Log, recorder: RecordingHandler
) -> None:
    pubsub = await run_pubsub(proxy.url)
    proxy.flowing.clear()
    first, second = (asyncio.create_task(pubsub.subscribe(log)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])

    proxy.flowing.set()

    await second
    assert recorder.subscribed == [log]


async def test_a_log_with_a_subscriber_is_not_left_with_another(
    pubsub: PubSub,
    redis: RedisConnection,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both were subscribing when one left. The other must still receive announcements
    # after the channel has lingered.
    monkeypatch.setattr(pubsub_module, "LINGER_S", 0.0)
    staying = asyncio.create_task(pubsub.subscribe(log))
    leaving = asyncio.create_task(pubsub.subscribe(log))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    pubsub.unsubscribe(log)
    await staying

    pubsub.on_watch(asyncio.get_running_loop().time() + 1)

    await redis.call("PING")
    assert await subscribers(redis, log) == 1
    pubsub.unsubscribe(log)
    pubsub.on_watch(asyncio.get_running_loop().time() + 1)
    async with asyncio.timeout(60):
        while await subscribers(redis, log):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_channel_lingers_and_is_reused_at_once(
    pubsub: PubSub, redis: RedisConnection, recorder: RecordingHandler, log: Log
) -> None:
    await pubsub.subscribe(log)
    pubsub.unsubscribe(log)
    pubsub.on_watch(asyncio.get_running_loop().time())
    assert await subscribers(redis, log) == 1

    await pubsub.subscribe(log)

    pubsub.on_watch(asyncio.get_running_loop().time() + 60)
    assert await subscribers(redis, log) == 1
    assert recorder.subscribed == [log]


async def test_a_log_that_was_left_can_be_subscribed_again(
    pubsub: PubSub,
    redis: RedisConnection,
    recorder: RecordingHandler,
    log: Log,
    until: Until,
) -> None:
    inbox = Inbox(redis)
    for round_ in range(1, 51):
        await pubsub.subscribe(log)
        await inbox.append(log, [b"x"])
        await until(lambda: recorder.offsets.get(log, [0])[-1] == round_)  # noqa: B023
        pubsub.unsubscribe(log)
        # SUNSUBSCRIBE and the next SSUBSCRIBE are sent together.
        pubsub.on_watch(asyncio.get_running_loop().time() + 60)

    assert recorder.offsets[log] == list(range(1, 51))


async def test_every_interruption_is_reported_for_every_log(
    pubsub: PubSub, redis: RedisConnection, recorder: RecordingHandler, until: Until
) -> None:
    logs = [Log(App("a"), Player(f"p{n}")) for n in range(1_200)]
    await asyncio.gather(*(pubsub.subscribe(log) for log in logs))
    recorder.subscribed.clear()

    await redis.call("CLIENT", "KILL", "TYPE", "pubsub")

    await until(lambda: len(recorder.subscribed) == len(logs))
    assert set(recorder.subscribed) == set(logs)


async def test_a_new_connection_can_be_requested(
    pubsub: PubSub, recorder: RecordingHandler, log: Log, until: Until
) -> None:
    await pubsub.subscribe(log)

    pubsub.reconnect()

    await until(lambda: recorder.subscribed == [log, log])


async def test_a_silent_connection_is_dropped(
    run_pubsub: RunPubSub,
    proxy: Proxy,
    recorder: RecordingHandler,
    log: Log,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber_module, "PING_S", 0.1)
    monkeypatch.setattr(subscriber_module, "SILENCE_S", 0.5)
    pubsub = await run_pubsub(proxy.url)
    await pubsub.subscribe(log)
    proxy.flowing.clear()

    await until(lambda: not pubsub.connected)

    proxy.flowing.set()
    await until(lambda: len(recorder.subscribed) == 2)


async def test_logs_are_subscribed_again_after_a_restart(
    run_pubsub: RunPubSub,
    start_store: Callable[[], Awaitable[Embedded]],
    recorder: RecordingHandler,
    log: Log,
    until: Until,
) -> None:
    store = await start_store()
    pubsub = await run_pubsub(store.url)
    await pubsub.subscribe(log)
    await store.stop()
    await until(lambda: not pubsub.connected)
    with pytest.raises(StoreUnavailable):
        await pubsub.subscribe(log)

    store = await start_store()

    await until(lambda: recorder.subscribed == [log, log])
    redis = RedisConnection(store.url)
    await Inbox(redis).append(log, [b"x"])
    await until(lambda: recorder.offsets.get(log) == [1])
    await redis.close()


async def test_channels_are_left_a_few_at_a_time(
    pubsub: PubSub, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_module, "LINGER_S", 60.0)
    monkeypatch.setattr(pubsub_module, "LEFT_MAX", 2)
    logs = [Log(App("a"), Player(f"p{n}")) for n in range(5)]
    for log in logs:
        await pubsub.subscribe(log)
    for log in logs:
        pubsub.unsubscribe(log)
    await pubsub.subscribe(logs[0])  # It is used again.
    pubsub.unsubscribe(logs[0])
    later_s = asyncio.get_running_loop().time() + 61

    left = []
    for _ in range(4):
        pubsub.on_watch(later_s)
        left.append(sorted(log.player for log in pubsub._unused))

    assert left == [["p0", "p3", "p4"], ["p0"], [], []]
    async with asyncio.timeout(60):
        while await redis.call("PUBSUB", "SHARDCHANNELS"):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_churn_leaves_nothing_behind(
    pubsub: PubSub, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub_module, "LINGER_S", 0.0)
    rng = random.Random(3)
    logs = [Log(App("a"), Player(f"p{n}")) for n in range(30)]

    async def come_and_go() -> None:
        for _ in range(30):
            log = rng.choice(logs)
            try:
                async with asyncio.timeout(rng.random() * 0.01):
                    await pubsub.subscribe(log)
                    await asyncio.sleep(rng.random() * 0.003)
            except (TimeoutError, StoreUnavailable):
                pass
            finally:
                pubsub.unsubscribe(log)
            if rng.random() < 0.3:
                pubsub.on_watch(asyncio.get_running_loop().time() + 1)
            if rng.random() < 0.01:
                pubsub.reconnect()

    await asyncio.gather(*(come_and_go() for _ in range(20)))
    pubsub.on_watch(asyncio.get_running_loop().time() + 1)

    assert not pubsub._logs
    assert not pubsub._confirmed
    assert not pubsub._unused
    assert not pubsub._subscribers
    async with asyncio.timeout(60):
        while await redis.call("PUBSUB", "SHARDCHANNELS"):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_forbidden_channel_is_reported_until_it_is_allowed(
    store_url: str,
    redis: RedisConnection,
    recorder: RecordingHandler,
    log: Log,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rights = ("on", ">secret", "~*", "+@all", "resetchannels")
    await redis.call("ACL", "SETUSER", "guest", "reset", *rights)
    url = store_url.replace("unix://", "unix://guest:secret@")
    faults = StoreFaults()
    pubsub = PubSub(url, recorder, faults=faults)
    running = asyncio.create_task(pubsub.run())
    try:
        await until(lambda: pubsub.connected)
        with pytest.raises(StoreUnavailable):
            await pubsub.subscribe(log)
        # Each new connection subscribes again, and is refused again.
        await until(lambda: pubsub.losses >= 3)
        assert "refuses announcements: NOPERM" in (faults.reason or "")
        assert len(caplog.records) == 1

        await redis.call("ACL", "SETUSER", "guest", "allchannels")

        await until(lambda: recorder.subscribed == [log])
        assert faults.reason is None
    finally:
        running.cancel()
        await asyncio.wait([running])
        await redis.call("ACL", "DELUSER", "guest")


async def test_a_message_that_is_no_announcement_leads_to_a_read(
    pubsub: PubSub,
    redis: RedisConnection,
    recorder: RecordingHandler,
    log: Log,
    until: Until,
) -> None:
    await pubsub.subscribe(log)
    recorder.subscribed.clear()

    await redis.call("SPUBLISH", redis.keys.channel(log), "entry of somebody else")

    await until(lambda: recorder.subscribed == [log])
    await Inbox(redis).append(log, [b"x"])
    await until(lambda: recorder.offsets.get(log) == [1])
    assert pubsub.losses == 0

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from streamer.config import Config
from streamer.core.store_health import DISK_FULL_LIMIT, StoreFacts, parse_facts
from streamer.errors import StoreUnavailable, StoreUnfit
from streamer.service.node import store_watch
from streamer.service.node.store_watch import StoreWatch, refuse_unsuitable_store
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.server.embedded import Embedded

GUARD_S = 60


@pytest.fixture
async def store(store_binary: Path, tmp_path: Path) -> AsyncIterator[Embedded]:
    """Yield a store whose settings a test may change."""
    store = await Embedded.start(tmp_path / "store", binary=store_binary)
    yield store
    await store.stop()


@pytest.fixture
async def redis(store: Embedded) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(store.url)
    yield redis
    await redis.close()


async def test_a_store_that_keeps_the_promise_is_suitable(
    redis: RedisConnection,
) -> None:
    watch = StoreWatch(redis, Config())
    assert watch.unready_reason() is not None
    assert watch.durability == "unknown"

    await watch.check()

    assert watch.unready_reason() is None
    assert watch.durability == "always"


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("appendfsync", "everysec", "appendfsync always (it is everysec)"),
        ("appendfsync", "no", "appendfsync always (it is no)"),
        ("appendonly", "no", "requires appendonly yes"),
        ("maxmemory-policy", "allkeys-lru", "allkeys-lru"),
    ],
)
async def test_an_unsuitable_store_is_refused_at_the_start_and_unready_later(
    store: Embedded,
    redis: RedisConnection,
    caplog: pytest.LogCaptureFixture,
    setting: str,
    value: str,
    word: str,
) -> None:
    watch = StoreWatch(redis, Config())
    await watch.check()
    await redis.call("CONFIG", "SET", setting, value)

    await watch.check()

    assert word in (watch.unready_reason() or "")
    assert caplog.text.count(word) == 1
    with pytest.raises(StoreUnfit, match=re.escape(word)):
        await refuse_unsuitable_store(store.url, Config())


async def test_the_node_is_ready_again_when_the_store_is_suitable(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    watch = StoreWatch(redis, Config())
    await redis.call("CONFIG", "SET", "appendfsync", "everysec")
    await watch.check()
    await redis.call("CONFIG", "SET", "appendfsync", "always")

    await watch.check()

    assert watch.unready_reason() is None
    assert "resolved: durability=always requires" in caplog.text


async def test_an_unchanged_finding_is_logged_once(
    redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    watch = StoreWatch(redis, Config(durability="everysec"))
    await redis.call("CONFIG", "SET", "appendfsync", "everysec")

    for _ in range(3):
        await watch.check()

    assert watch.unready_reason() is None
    assert watch.durability == "everysec"
    assert len(caplog.records) == 1


async def test_a_store_that_hides_its_settings_is_accepted_with_a_warning(
    store: Embedded, redis: RedisConnection, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.call(
        *("ACL", "SETUSER", "guest", "on", "nopass", "~*", "&*", "+@all", "-config")
    )
    hosted = RedisConnection(store.url.replace("unix://", "unix://guest:x@"))
    try:
        watch = StoreWatch(hosted, Config())

        await watch.check()

        assert watch.unready_reason() is None
        assert watch.durability == "unknown"
        assert "durability is unknown" in caplog.text
        # That CONFIG is forbidden, again and again, is no reason for a check.
        await watch.check(tries_commands=False)
        assert not watch._is_check_due()
    finally:
        await hosted.close()


async def test_a_store_without_replicas_cannot_replicate(
    redis: RedisConnection,
) -> None:
    watch = StoreWatch(redis, Config(durability="replicated"))

    await watch.check()

    assert "0 of 1 required replicas are in sync" in (watch.unready_reason() or "")
    assert watch.durability == "replicated"


async def test_an_unavailable_store_is_not_judged(tmp_path: Path) -> None:
    await refuse_unsuitable_store(f"unix://{tmp_path}/nobody", Config())

    watch = StoreWatch(RedisConnection(f"unix://{tmp_path}/nobody"), Config())
    with pytest.raises(StoreUnavailable):
        await watch.check()


async def test_a_store_that_replaces_another_is_checked_at_once(
    store: Embedded, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_watch, "POLL_S", 0.01)
    watch = StoreWatch(redis, Config())
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.unready_reason() is None)
        await redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await redis.close()

        await redis.call("PING")

        await until(watch.unready_reason)
    finally:
        running.cancel()


async def test_an_unsuitable_store_is_checked_until_it_is_suitable(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_watch, "POLL_S", 0.01)
    await redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    watch = StoreWatch(redis, Config())
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch._facts is not None)
        assert watch.unready_reason()

        await redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")

        await until(lambda: watch.unready_reason() is None)
    finally:
        running.cancel()


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not fact():  # noqa: ASYNC110  # There is no event for it.
            await asyncio.sleep(0.005)


class Guest(NamedTuple):
    """The connection of a user with every right, and the watch of it."""

    redis: RedisConnection
    watch: StoreWatch
    faults: StoreFaults


@pytest.fixture
async def guest(store: Embedded, redis: RedisConnection) -> AsyncIterator[Guest]:
    rights = ("on", ">secret", "~*", "&*", "+@all")
    await redis.call("ACL", "SETUSER", "guest", "reset", *rights)
    faults = StoreFaults()
    url = store.url.replace("unix://", "unix://guest:secret@")
    own = RedisConnection(url, faults=faults)
    yield Guest(own, StoreWatch(own, Config(), faults=faults), faults)
    await own.close()


async def test_a_store_that_forbids_a_command_makes_the_node_unready(
    redis: RedisConnection, guest: Guest
) -> None:
    await guest.watch.check()
    assert guest.watch.unready_reason() is None
    await redis.call("ACL", "SETUSER", "guest", "-zadd")

    await guest.watch.check()

    reason = "the store forbids ZADD, which this server needs: NOPERM"
    assert (guest.watch.unready_reason() or "").startswith(reason)
    await redis.call("ACL", "SETUSER", "guest", "+zadd")
    await guest.watch.check()
    assert guest.watch.unready_reason() is None


async def test_a_command_that_was_forbidden_leads_to_a_check(
    redis: RedisConnection, guest: Guest
) -> None:
    await guest.watch.check()
    assert not guest.watch._is_check_due()
    # The keys of the trial are allowed.
    await redis.call("ACL", "SETUSER", "guest", "resetkeys", "~*trial*", "~*streamer*")

    with pytest.raises(StoreUnavailable):
        await guest.redis.call("GET", "k")

    assert guest.watch._is_check_due()
    await guest.watch.check()
    assert "forbids a command: NOPERM" in (guest.watch.unready_reason() or "")
    await guest.watch.check()
    assert guest.watch.unready_reason() is None


async def test_the_words_of_an_unavailable_store_are_the_reason(
    tmp_path: Path,
) -> None:
    faults = StoreFaults()
    redis = RedisConnection(f"unix://{tmp_path}/nobody", faults=faults)
    watch = StoreWatch(redis, Config(), faults=faults)
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: faults.reason is not None)

        reason = "the store is unavailable: No such file or directory"
        assert watch.unready_reason() == reason
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_commands_are_tried_every_30_s_and_while_one_is_forbidden(
    redis: RedisConnection,
) -> None:
    times, faults = Times(), StoreFaults()
    watch = StoreWatch(redis, Config(), faults=faults, clock_s=times.clock_s)
    assert watch._is_trial_due()
    await watch.check()
    times.now_s += store_watch.CHECK_S - 0.1
    assert not watch._is_trial_due()
    faults.failed(store_watch.ALLOWED, "forbids XADD")
    assert watch._is_trial_due()
    await watch.check()
    assert not watch._is_trial_due()
    times.now_s += store_watch.CHECK_S
    assert watch._is_trial_due()


class Other:
    """Another connection, which leads to the server of this name."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.reconnects = 0

    def reconnect(self) -> None:
        self.reconnects += 1
        self.server = ""


async def test_connections_to_another_server_are_opened_anew(
    redis: RedisConnection,
) -> None:
    await redis.call("PING")
    former, same, closed = Other("former"), Other(redis.server), Other("")
    watch = StoreWatch(redis, Config(), others=[former, same, closed])

    await watch._check_if_due()
    await watch._check_if_due()

    assert [it.reconnects for it in (former, same, closed)] == [1, 0, 0]


async def test_the_node_is_ready_when_publishes_reach_the_store_again(
    store: Embedded, redis: RedisConnection, tmp_path: Path
) -> None:
    faults = StoreFaults()
    door = tmp_path / "door"
    confirmed = RedisConnection(f"unix://{door}", faults=faults)
    watch = StoreWatch(redis, Config(), faults=faults, confirmed=confirmed)

    # The connection for reads leads to the store all the time.
    with pytest.raises(StoreUnavailable):
        await watch.check()

    assert "No such file" in (watch.unready_reason() or "")
    door.symlink_to(urlsplit(store.url).path)
    await watch.check()
    assert watch.unready_reason() is None
    await confirmed.close()


class Times:
    """A clock, and a store with this number of delayed syncs."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.delayed = 7

    def clock_s(self) -> float:
        return self.now_s

    async def read_facts(self, redis: RedisConnection) -> StoreFacts:
        settings = [b"appendonly", b"yes", b"appendfsync", b"everysec"]
        return parse_facts(b"aof_delayed_fsync:%d\r\n" % self.delayed, settings)


@pytest.mark.row("A3")
async def test_a_disk_that_does_not_keep_up_degrades_and_recovers(
    redis: RedisConnection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = Times()
    monkeypatch.setattr(store_watch, "read_facts", times.read_facts)
    watch = StoreWatch(redis, Config(durability="everysec"), clock_s=times.clock_s)
    seen = []
    # Syncs delayed before the start do not count.
    for after_s, more in ((0, 0), (2, 1), (2, 0), (27.9, 0), (0.1, 0)):
        times.now_s += after_s
        times.delayed += more
        await watch.check()
        seen.append(watch.durability)

    assert seen == ["everysec", "degraded", "degraded", "degraded", "everysec"]
    assert caplog.text.count("durability is degraded") == 1
    assert caplog.text.count("the store's disk keeps up") == 1
    assert watch.unready_reason() is None


async def test_a_full_disk_is_no_memory_limit(redis: RedisConnection) -> None:
    watch = StoreWatch(redis, Config())
    await watch.check()
    await redis.call("CONFIG", "SET", "maxmemory", DISK_FULL_LIMIT)

    await watch.check(tries_commands=False)

    assert watch.memory == "full"
    assert watch.memory_max == 0
    assert [limit for _, limit in watch.memory_by_shard.values()] == [0]


@pytest.mark.parametrize(
    ("fsync", "every_s"),
    [("always", store_watch.CHECK_S), ("everysec", store_watch.CHECK_EVERYSEC_S)],
)
async def test_an_everysec_store_is_checked_more_often(
    redis: RedisConnection, fsync: str, every_s: float
) -> None:
    times = Times()
    await redis.call("CONFIG", "SET", "appendfsync", fsync)
    watch = StoreWatch(redis, Config(durability="everysec"), clock_s=times.clock_s)
    await watch.check()

    times.now_s += every_s - 0.1
    assert not watch._is_check_due()
    times.now_s += 0.1
    assert watch._is_check_due()

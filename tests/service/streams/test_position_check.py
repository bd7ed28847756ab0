"""The position check: which logs are read although nothing was announced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.session import Session
from streamer.core.streams.subscription import History
from streamer.core.streams.unread_count import InboxCount
from streamer.errors import StoreUnavailable
from streamer.hub import Hub
from streamer.model import ZERO, App, Log, Player, everyone_log
from streamer.service.streams import position_check as module
from streamer.service.streams.expiries import Expiries
from streamer.service.streams.position_check import READ_EVERY, PositionCheck
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.entries import Draft
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings

from ...clock import Clock
from ...conftest import Until
from ..conftest import Client

FRAGMENT = b'"title":"t"}'
CHECK_S = 4


class World:
    """A hub without announcements, and a position check that the tests run."""

    def __init__(self, inbox: Inbox, make_client: Any, check_s: int = CHECK_S) -> None:
        self.inbox = inbox
        self.hub = Hub()
        self.expiries = Expiries(self.hub, inbox)
        self.positions = PositionCheck(self.hub, inbox, self.expiries, check_s=check_s)
        self._make_client = make_client

    async def attach(self, log: Log) -> Any:
        """Let a reader follow a log from its newest entry on."""
        client = self._make_client()
        self.hub.attach(log, client.session)
        await self.read(log)
        return client

    def attach_audience(self, client: Any, audience: Log) -> None:
        sub = AudienceSubscription(
            audience, client.session, ZERO, joined_at=ZERO, is_member=True
        )
        client.session.audience_subscriptions = (sub,)
        self.hub.attach_audience(sub)
        sub.own_subscription().begin_read()
        sub.on_history(ZERO, History(ZERO, ZERO, []))
        self.hub.needs_read.clear()

    async def read(self, log: Log) -> None:
        """Deliver the entries after their positions to a log's readers."""
        for read_from, readers in self.hub.readers_by_position(log).items():
            for reader in readers:
                reader.own_subscription().begin_read()
            read = await self.inbox.read_after(log, read_from, count=100)
            for reader in readers:
                counted = InboxCount(read.history.head, read.unread, read.marks, {}, {})
                reader.on_history(read_from, read.history, counted)
                # The second finds that nothing has announced a mark.
                if isinstance(reader, Session) and not reader.on_count(counted):
                    reader.on_count(counted)
        self.hub.needs_read.clear()

    async def stale_logs(self, rounds: int = 1) -> set[Log]:
        """Return the logs that need a read after so many rounds."""
        for _ in range(rounds * CHECK_S):
            await self.positions.check_due()
        return set(self.hub.needs_read)


@pytest.fixture
def world(
    inbox: Inbox, make_client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> World:
    # A log in sync is read now and then all the same; one test is about that.
    monkeypatch.setattr(module, "READ_EVERY", 10**20)
    return World(inbox, make_client)


async def test_a_log_in_sync_costs_no_read(
    world: World, log: Log, inbox: Inbox
) -> None:
    await inbox.append(log, [FRAGMENT])
    await world.attach(log)

    assert await world.stale_logs(rounds=3) == set()


async def test_a_log_without_entries_costs_no_read(world: World, log: Log) -> None:
    await world.attach(log)

    assert await world.stale_logs(rounds=3) == set()


async def test_a_missed_entry_is_found_in_one_round(
    world: World, log: Log, inbox: Inbox
) -> None:
    client = await world.attach(log)
    await inbox.append(log, [FRAGMENT])

    assert await world.stale_logs() == {log}
    await world.read(log)
    assert client.has(1)
    assert await world.stale_logs(rounds=2) == set()


async def test_a_lost_log_is_found_in_one_round(
    world: World, log: Log, inbox: Inbox, redis: RedisConnection
) -> None:
    await inbox.append(log, [FRAGMENT])
    await world.attach(log)
    await redis.call("DEL", keys_of().state(log), write=True)

    assert await world.stale_logs() == {log}


async def test_a_missed_mark_is_found_in_one_round(
    world: World, log: Log, inbox: Inbox
) -> None:
    await inbox.append(log, [FRAGMENT])
    client = await world.attach(log)
    await inbox.mark_all(log)

    assert await world.stale_logs() == {log}
    await world.read(log)
    assert client.of("read")[-1]["unread"] == 0
    assert await world.stale_logs(rounds=2) == set()


async def test_an_expiry_that_is_to_come_is_noted(
    world: World, log: Log, inbox: Inbox
) -> None:
    await world.attach(log)
    await inbox.append(log, [Draft(FRAGMENT, expires_ms=1_000_000_000_000_000)])
    await world.read(log)

    await world.stale_logs()

    assert world.expiries._next_ms == {log: 1_000_000_000_000_000}


async def test_streams_count_again_when_another_node_has_ended_an_entry(
    log: Log, redis: RedisConnection, make_client: type[Client], clock: Clock
) -> None:
    inbox = Inbox(redis, LogSettings(clock_us=clock))
    world = World(inbox, make_client)
    everyone = everyone_log(log.app)
    member = await world.attach(log)
    stranger = Log(App("other"), Player("p"))
    await world.attach(stranger)
    world.attach_audience(member, everyone)
    await inbox.append(everyone, [Draft(FRAGMENT, expires_ms=clock.now_ms + 1_000)])
    await world.stale_logs()
    await world.read(everyone)
    world.hub.needs_count.clear()

    clock.now_ms += 1_000
    await inbox.page(everyone, count=1)
    await world.stale_logs()

    assert list(world.hub.needs_count) == [log]
    world.hub.needs_count.clear()
    await world.stale_logs()
    assert not world.hub.needs_count


async def test_a_log_that_cannot_be_peeked_at_is_read(
    world: World, log: Log, redis: RedisConnection
) -> None:
    await world.attach(log)
    await redis.call("SET", keys_of().state(log), "x", write=True)

    assert await world.stale_logs() == {log}


async def test_an_unavailable_store_makes_no_log_stale(
    log: Log, inbox: Inbox, make_client: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(inbox, make_client)
    await world.attach(log)

    async def away(*args: object) -> list[Any]:
        raise StoreUnavailable

    monkeypatch.setattr(inbox, "peek", away)
    with pytest.raises(StoreUnavailable):
        await world.stale_logs()
    assert not world.hub.needs_read


async def test_the_check_goes_on_after_an_outage(
    log: Log,
    inbox: Inbox,
    make_client: type[Client],
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    world = World(inbox, make_client, check_s=1)
    await world.attach(log)
    peek, failures = inbox.peek, 0

    async def away_once(logs: Any) -> Any:
        nonlocal failures
        if not failures:
            failures += 1
            raise StoreUnavailable
        return await peek(logs)

    monkeypatch.setattr(inbox, "peek", away_once)
    await inbox.append(log, [FRAGMENT])
    running = asyncio.create_task(world.positions.run())
    try:
        await until(lambda: world.hub.needs_read)
    finally:
        running.cancel()
    assert failures == 1


async def test_a_log_in_sync_is_read_now_and_then(
    log: Log, inbox: Inbox, make_client: type[Client]
) -> None:
    world = World(inbox, make_client)
    await world.attach(log)
    reads = 0
    for _ in range(2 * READ_EVERY):
        reads += bool(await world.stale_logs())
        await world.read(log)

    assert reads == 2


async def test_a_stale_reader_without_a_pending_read_is_read(
    world: World, log: Log
) -> None:
    client = await world.attach(log)
    client.session.subscription.mark_stale()

    assert await world.stale_logs() == {log}


async def test_a_stale_reader_with_a_pending_read_causes_no_other(
    world: World, log: Log, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.attach(log)
    world.hub.mark_stale(log)
    again: list[Log] = []
    monkeypatch.setattr(world.hub, "mark_stale", again.append)

    await world.stale_logs()

    assert again == []

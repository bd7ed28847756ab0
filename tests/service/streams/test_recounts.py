"""Unread numbers when a count meets a change: each test holds one of them back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from small_client import Badge
from streamer.core.streams.session import Session
from streamer.core.streams.unread_count import InboxCount
from streamer.errors import RESYNC, StoreUnavailable
from streamer.model import App, Log, Player, Topic, everyone_log, topic_log
from streamer.service.streams.catch_up import TURN
from streamer.service.streams.recounts import STALE_AFTER
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.settings import LogSettings

from ...conftest import Until
from ..conftest import Client
from .conftest import NEWS, World, gate, number


async def test_an_entry_that_arrives_while_an_older_count_is_on_its_way_is_added(
    world: World, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    first = await world.publish(world.news)
    client = await world.follow()
    counting = gate(monkeypatch, world.inbox, "audiences_each")
    counting.open.clear()
    await world.inboxes.delete(world.me, world.log.player, first.id)
    # The count is made before the topic's next entry, and arrives after it.
    await until(lambda: counting.waiting)
    await world.publish(world.news)
    await until(lambda: len(client.of("notification")) == 1)

    counting.open.set()

    await until(lambda: number(client) == 1)
    assert await world.settled(client) == await world.page() == 1
    assert {"type": "unread", "unread": 0} not in client.messages


async def test_a_count_with_an_entry_that_has_not_arrived_waits_for_it(
    world: World, until: Until
) -> None:
    own = await world.publish(world.log)
    await world.publish(world.news)
    client = await world.follow()
    world.catch_up.held = world.news
    await world.publish(world.news)
    await until(lambda: world.catch_up.kept)

    # The mark's own count includes the topic's entry.
    await world.inboxes.mark_ids(world.me, world.log.player, [own.id])
    await until(lambda: world.catch_up._recounts._vain or client.of("read"))
    assert not client.of("read")
    world.catch_up.release()

    await until(lambda: client.of("read"))
    assert await world.settled(client) == await world.page() == 2


async def test_a_deletion_is_counted_although_its_notice_comes_first(
    world: World, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    position = await world.publish(world.news)
    client = await world.follow()
    changing = gate(monkeypatch, world.audiences.views, "change", before=True)
    changing.open.clear()

    deleting = asyncio.create_task(
        world.inboxes.delete(world.me, world.log.player, position.id)
    )
    await until(lambda: client.of("withdrawn"))
    # The count that the notice causes is made before the change.
    assert await world.settled(client) == 1
    changing.open.set()
    await deleting

    await until(lambda: number(client) == 0)
    assert await world.settled(client) == await world.page() == 0


async def test_a_collapse_key_changes_the_number_by_what_the_page_says(
    world: World, until: Until
) -> None:
    await world.publish(world.news, collapse_key="k")
    client = await world.follow()

    await world.publish(world.news, collapse_key="k")
    await world.publish(world.news)

    await until(lambda: len(client.of("notification")) == 2)
    await until(lambda: number(client) == 2)
    assert await world.settled(client) == await world.page() == 2


async def test_the_number_does_not_go_back_on_resume(
    world: World, until: Until
) -> None:
    await world.publish(world.log)
    first = await world.follow()
    cursor = first.cursor
    for log in (world.log, world.news, world.everyone):
        await world.publish(log)

    second = await world.follow(read_from=cursor)
    await until(lambda: len(second.of("notification")) == 3)

    badge = Badge()
    numbers = [badge.take(message) for message in second.messages]
    assert numbers == [1, 2, 3, 4, 4]
    assert await world.settled(second) == await world.page() == 4


async def test_a_gap_is_followed_by_the_number_at_once(
    world: World, until: Until
) -> None:
    cursor = (await world.follow()).cursor
    for _ in range(12):
        await world.publish(world.log)
        await world.publish(world.news)

    second = await world.follow(read_from=cursor)

    await until(lambda: number(second) == 24)
    kinds = [message["type"] for message in second.messages[:5]]
    assert kinds == ["hello", "gap", "unread", "gap", "unread"]
    counts = [message.get("unread") for message in second.messages[:5]]
    assert counts == [0, None, 12, None, 24]


async def test_what_was_read_elsewhere_before_the_resume_is_told_after_the_replay(
    world: World, until: Until
) -> None:
    cursor = (await world.follow()).cursor
    position = await world.publish(world.news)
    await world.publish(world.news)
    await world.inboxes.mark_ids(world.me, world.log.player, [position.id])

    second = await world.follow(read_from=cursor)
    await until(lambda: len(second.of("notification")) == 2)

    assert second.of("hello")[0]["unread"] == 0
    assert second.messages[3] == {"type": "unread", "unread": 1}


async def test_a_notification_for_another_device_is_in_the_number(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await world.follow()
    client.session.device = "phone"
    take = world.catch_up.on_entry
    # As if the player had used another device last.
    monkeypatch.setattr(
        world.catch_up, "on_entry", lambda of, e: take(of, e._replace(device="tablet"))
    )

    await world.publish(world.log)

    await until(lambda: number(client) == 1)
    assert await world.settled(client) == await world.page() == 1
    assert client.of("notification") == []


async def test_a_topic_that_is_joined_left_and_muted_changes_the_number(
    world: World, until: Until
) -> None:
    client = await world.follow()
    await world.publish(world.news)
    await until(lambda: number(client) == 1)

    await world.audiences.views.mute(world.log, world.news, muted=True)
    await until(lambda: number(client) == 0)
    await world.audiences.views.mute(world.log, world.news, muted=False)
    await until(lambda: number(client) == 1)
    await world.audiences.leave(world.log, NEWS)
    await until(lambda: number(client) == 0)

    assert await world.settled(client) == await world.page() == 0


async def test_a_topic_of_both_the_player_and_the_stream_is_told_by_number(
    world: World, until: Until
) -> None:
    client = await world.follow(topics=(NEWS,))

    await world.publish(world.news)
    await until(lambda: client.of("unread"))
    await world.publish(world.news)
    await until(lambda: client.of("unread")[-1]["unread"] == 2)

    assert await world.page() == 2


async def test_a_lost_announcement_is_found_by_the_count_that_includes_it(
    world: World, until: Until
) -> None:
    own = await world.publish(world.log)
    client = await world.follow()
    world.catch_up.held = world.news
    await world.publish(world.news)
    await until(lambda: world.catch_up.kept)

    # It stays lost; only reads of the logs can find it.
    await world.inboxes.mark_ids(world.me, world.log.player, [own.id])

    await until(lambda: client.of("notification"))
    await until(lambda: client.of("read"))
    assert await world.settled(client) == await world.page() == 1


async def test_what_is_counted_and_on_its_way_lets_no_audience_be_read(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = await world.publish(world.log)
    client = await world.follow()
    hub, recounts = world.catch_up.hub, world.catch_up._recounts
    marked: list[Log] = []
    mark_stale, is_blocked = hub.mark_stale, True

    def recorded(log: Log) -> None:
        marked.append(log)
        mark_stale(log)

    def block() -> Iterator[int]:
        while is_blocked:
            yield TURN

    monkeypatch.setattr(hub, "mark_stale", recorded)
    hub.portions.add(block())
    await world.publish(world.news)

    await world.inboxes.mark_ids(world.me, world.log.player, [own.id])
    await until(lambda: recounts._vain.get(world.log, 0) > STALE_AFTER)

    assert world.log in marked
    assert world.news not in marked
    assert not client.of("notification")
    is_blocked = False
    await until(lambda: client.of("notification"))
    await until(lambda: client.of("read"))
    assert await world.settled(client) == await world.page() == 1


async def test_counts_of_many_players_come_in_packets(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
    make_client: type[Client],
) -> None:
    sizes: list[int] = []
    counts = world.audiences.counts

    async def recorded(logs: Any) -> Any:
        sizes.append(len(logs))
        return await counts(logs)

    monkeypatch.setattr(world.audiences, "counts", recorded)
    first = await world.publish(world.everyone)
    clients: list[Client] = []
    async with AsyncExitStack() as stack:
        for n in range(250):
            client = make_client()
            log = Log(App(world.log.app), Player(f"p{n}"))
            follow = world.catch_up.stream_audiences.follow(log, client.session)
            await stack.enter_async_context(follow)
            clients.append(client)
        await until(lambda: all(client.begin is not None for client in clients))
        await world.publish(world.everyone)
        await until(lambda: all(number(client) == 1 for client in clients))
        sizes.clear()

        await world.inbox.withdraw(world.everyone, first._replace(offset=first.offset))
        await until(lambda: all(client.of("withdrawn") for client in clients))
        await until(lambda: not world.catch_up._recounts.is_counting)

    assert sum(sizes) >= 250
    assert max(sizes) <= 100


async def test_a_player_that_cannot_be_counted_delays_no_other(
    world: World, redis: RedisConnection, until: Until, make_client: type[Client]
) -> None:
    own = await world.publish(world.log)
    client, broken = await world.follow(), make_client()
    other = Log(world.log.app, Player("other"))
    topic = Topic("broken")
    await world.audiences.join(other, topic)
    async with world.catch_up.stream_audiences.follow(other, broken.session):
        await until(lambda: broken.begin is not None)
        state = keys_of().state(topic_log(world.log.app, topic))
        await redis.call("SET", state, "x", write=True)
        world.catch_up.hub.note_needs_count(other)

        await world.inboxes.mark_ids(world.me, world.log.player, [own.id])
        await until(lambda: number(client) == 0)
        await redis.call("DEL", state, write=True)
        await until(lambda: not world.catch_up._recounts.is_counting)


async def test_a_stream_that_fails_on_its_count_ends_alone(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
    make_client: type[Client],
) -> None:
    own = await world.publish(world.log)
    client, broken = await world.follow(), make_client()
    other = Log(world.log.app, Player("other"))

    real = Session.on_count

    def on_count(session: Session, count: InboxCount) -> bool:
        if session is broken.session:
            raise KeyError("broken")
        return real(session, count)

    async with world.catch_up.stream_audiences.follow(other, broken.session):
        await until(lambda: broken.begin is not None)
        monkeypatch.setattr(Session, "on_count", on_count)
        world.catch_up.hub.note_needs_count(other)
        await until(lambda: broken.ended == RESYNC)

        await world.inboxes.mark_ids(world.me, world.log.player, [own.id])
        await until(lambda: number(client) == 0)


async def test_an_unavailable_store_delays_a_count_and_loses_none(
    world: World, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    own = await world.publish(world.log)
    client = await world.follow()
    count_many, failures = world.audiences.views.count_many, 0

    async def away_at_first(logs: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise StoreUnavailable
        return await count_many(logs)

    monkeypatch.setattr(world.audiences.views, "count_many", away_at_first)

    await world.inboxes.mark_ids(world.me, world.log.player, [own.id])

    await until(lambda: number(client) == 0)
    assert failures == 3


class TestAFullLog:
    """An inbox keeps three notifications."""

    @pytest.fixture
    def settings(self) -> LogSettings:
        return LogSettings(entries_max=3)

    async def test_what_is_displaced_is_taken_off_the_number(
        self, world: World, until: Until
    ) -> None:
        client = await world.follow()

        for log in (world.log, world.news, world.everyone):
            for _ in range(5):
                await world.publish(log)

        await until(lambda: len(client.of("notification")) == 15)
        await until(lambda: number(client) == 9)
        assert await world.settled(client) == await world.page() == 9


@pytest.mark.parametrize("key", ["state of everyone", "views", "state", "log"])
async def test_what_is_damaged_of_one_player_stops_no_part_for_others(
    key: str,
    world: World,
    redis: RedisConnection,
    until: Until,
    make_client: type[Client],
) -> None:
    own = await world.publish(world.log)
    client, broken = await world.follow(), make_client()
    other = Log(App("damaged"), Player("other"))
    keys, everyone = redis.keys, everyone_log(App("damaged"))
    await world.publish(other)
    await world.publish(everyone)
    hub, catch_up = world.catch_up.hub, world.catch_up
    async with catch_up.stream_audiences.follow(other, broken.session):
        await until(lambda: broken.begin is not None)
        spoilt = {
            "state of everyone": ("HSET", keys.state(everyone), "epoch", "x"),
            "views": ("SET", keys.views(other), "poison"),
            "state": ("HSET", keys.state(other), "head", "x"),
            "log": ("SET", keys.inbox(other).log, "poison"),
        }[key]
        await redis.call(*spoilt, write=True)
        if key == "state of everyone":
            # As a player that has not joined everyone's log yet.
            await redis.call("DEL", keys.views(other), write=True)
        hub.note_needs_count(other)
        hub.mark_stale(other)
        hub.mark_stale(everyone)
        catch_up._expiries.note(other, 1)
        catch_up._expiries.note(everyone, 1)

        await catch_up._expiries.check_due()
        await catch_up._position_check._peek_at([other, everyone, world.log])
        await world.inboxes.mark_ids(world.me, world.log.player, [own.id])
        await until(lambda: number(client) == 0)
        await world.publish(world.log)
        await until(lambda: number(client) == 1)
        hub.mark_stale(world.log)
        await until(lambda: world.log not in hub.needs_read)

"""The audiences of a player, since when it belongs to them, and unread counts."""

from __future__ import annotations

import asyncio

import pytest

from streamer.core.streams.cursor import Cursor, audience_key
from streamer.core.streams.views import Audience, View
from streamer.errors import Limit, LimitReached
from streamer.model import (
    ZERO,
    App,
    Entry,
    Log,
    Player,
    Position,
    Topic,
    everyone_log,
    topic_log,
)
from streamer.service.inboxes.audiences import PlayerAudiences, unread_count
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import TOPICS_MAX, Views

from ...clock import Clock

FRAGMENT = b'"title":"t"}'
APP = App("app")
EVERYONE = everyone_log(APP)
NEWS = topic_log(APP, Topic("news"))


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


@pytest.fixture
def audiences(redis: RedisConnection, inbox: Inbox, clock: Clock) -> PlayerAudiences:
    return PlayerAudiences(Views(redis, LogSettings(clock_us=clock)), inbox)


async def test_a_player_belongs_to_everyone_since_it_first_appeared(
    audiences: PlayerAudiences, inbox: Inbox, clock: Clock, log: Log
) -> None:
    places = (await inbox.append(EVERYONE, [FRAGMENT] * 3)).stored
    clock.now_us += 1

    assert await audiences.views_of(log) == [View(EVERYONE, places[-1])]

    await inbox.append(EVERYONE, [FRAGMENT])
    clock.now_us += 1
    assert await audiences.views_of(log) == [View(EVERYONE, places[-1])]
    assert await audiences.unread_counts([log]) == [1]


async def test_lost_views_are_restored_from_the_age_of_the_inbox(
    audiences: PlayerAudiences,
    inbox: Inbox,
    redis: RedisConnection,
    clock: Clock,
    log: Log,
) -> None:
    (before,) = (await inbox.append(EVERYONE, [FRAGMENT])).stored
    clock.now_us += 1
    await inbox.append(log, [FRAGMENT])
    clock.now_us += 1
    await inbox.append(EVERYONE, [FRAGMENT])
    await audiences.views_of(log)
    await redis.call("DEL", keys_of().views(log), write=True)

    assert await audiences.views_of(log) == [View(EVERYONE, before)]


async def test_concurrent_first_reads_of_views_agree(
    audiences: PlayerAudiences, inbox: Inbox, log: Log
) -> None:
    await asyncio.gather(
        *(audiences.views_of(log) for _ in range(5)),
        *(inbox.append(EVERYONE, [FRAGMENT]) for _ in range(5)),
    )

    assert await audiences.views_of(log) == await audiences.views_of(log)
    assert len(await audiences.views_of(log)) == 1


async def test_a_joined_topic_counts_from_its_present_head(
    audiences: PlayerAudiences, inbox: Inbox, log: Log
) -> None:
    await inbox.append(NEWS, [FRAGMENT] * 2)

    assert await audiences.join(log, Topic("news"))
    assert not await audiences.join(log, Topic("news"))

    assert await audiences.unread_counts([log]) == [0]
    await inbox.append(NEWS, [FRAGMENT])
    assert await audiences.unread_counts([log]) == [1]
    assert await audiences.leave(log, Topic("news"))
    assert not await audiences.leave(log, Topic("news"))
    assert await audiences.unread_counts([log]) == [0]


async def test_a_player_with_a_topic_belongs_to_everyone(
    audiences: PlayerAudiences, inbox: Inbox, clock: Clock, log: Log
) -> None:
    await audiences.join(log, Topic("news"))
    clock.now_us += 1
    await inbox.append(EVERYONE, [FRAGMENT])

    assert [view.log for view in await audiences.views_of(log)] == [EVERYONE, NEWS]
    assert await audiences.unread_counts([log]) == [1]


async def test_a_topic_beyond_the_limit_is_refused(
    audiences: PlayerAudiences, log: Log
) -> None:
    for n in range(TOPICS_MAX):
        await audiences.join(log, Topic(f"t{n}"))

    with pytest.raises(LimitReached) as refused:
        await audiences.join(log, Topic("more"))

    assert refused.value.limit is Limit.TOPICS_PER_PLAYER


async def test_unread_counts_of_many_players(
    audiences: PlayerAudiences, inbox: Inbox, clock: Clock
) -> None:
    logs = [Log(APP, Player(f"many-{n}")) for n in range(4)]
    for log in logs:
        await audiences.views_of(log)
    await audiences.join(logs[1], Topic("news"))
    clock.now_us += 1
    await inbox.append(EVERYONE, [FRAGMENT])
    await inbox.append(NEWS, [FRAGMENT] * 2)

    assert await audiences.unread_counts(logs) == [1, 3, 1, 1]


def test_an_audience_that_was_not_read_yet_counts_nothing() -> None:
    place = Position(1, 5, 5, 5)

    views = [View(EVERYONE, ZERO), View(NEWS, ZERO)]

    assert unread_count(views, {EVERYONE: Audience(place, 1, 0, b"")}) == 5


async def test_position_before_a_time_is_after_all_earlier_entries(
    audiences: PlayerAudiences, inbox: Inbox, clock: Clock
) -> None:
    begun_us = clock.now_us
    positions: list[Position] = []
    for _ in range(4):
        positions += (await inbox.append(NEWS, [FRAGMENT] * 2)).stored
        clock.now_us += 10
    before = audiences.position_before

    assert await before(NEWS, 0) == ZERO
    assert await before(NEWS, begun_us) == ZERO
    assert await before(NEWS, begun_us + 1) == positions[1]
    assert await before(NEWS, begun_us + 10) == positions[1]
    assert await before(NEWS, begun_us + 11) == positions[3]
    assert await before(NEWS, begun_us + 99) == positions[-1]
    assert await before(EVERYONE, begun_us + 99) == ZERO
    # Also if all of these have ended.
    for place in positions:
        await inbox.withdraw(NEWS, place)
    head = (await inbox.page(NEWS, count=0)).head
    assert await before(NEWS, clock.now_us + 1) == head


async def test_a_bare_id_is_resolved_in_all_logs(
    audiences: PlayerAudiences, inbox: Inbox, clock: Clock, log: Log
) -> None:
    await audiences.join(log, Topic("news"))
    clock.now_us += 1
    (own,) = (await inbox.append(log, [FRAGMENT])).stored
    clock.now_us += 1
    (news,) = (await inbox.append(NEWS, [FRAGMENT])).stored
    views = await audiences.views_of(log)

    def cursor(place: Position) -> Cursor:
        parsed = Cursor.parse(Entry(*place, b"").id)
        assert parsed is not None
        return parsed

    assert await audiences.resolve_cursor(log, views, cursor(own)) == cursor(own)
    resolved = await audiences.resolve_cursor(log, views, cursor(news))
    assert resolved == Cursor(own, {audience_key(NEWS): news})
    # An unknown id, and a cursor that is more than an id, are returned unchanged.
    foreign = cursor(news._replace(tag=news.tag ^ 1))
    assert await audiences.resolve_cursor(log, views, foreign) == foreign
    assert await audiences.resolve_cursor(log, views, resolved) is resolved

"""Players' views of audiences, on a real store, compared with a simple model."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.views import View
from streamer.errors import Limit, LimitReached
from streamer.model import (
    ZERO,
    App,
    Log,
    Player,
    Position,
    Topic,
    everyone_log,
    topic_log,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.entries import Draft
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.logs.views import (
    TOPICS_MAX,
    Change,
    FoundOffsets,
    PlayerCount,
    Tally,
    Views,
)

from ...clock import Clock
from ...conftest import Until
from ..recording import RecordingHandler

RETENTION_MS = 90 * DAY_MS
APP = App("app")
NEWS = topic_log(APP, Topic("news"))
EVERYONE = everyone_log(APP)
FRAGMENT = b'"title":"t"}'


@pytest.fixture
def views(redis: RedisConnection, clock: Clock) -> Views:
    return Views(redis, LogSettings(retention_ms=RETENTION_MS, clock_us=clock))


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(retention_ms=RETENTION_MS, clock_us=clock))


async def found(views: Views, log: Log) -> list[View]:
    (player,) = await views.read_many([log])
    assert not isinstance(player, Exception)
    return player.views


async def known_since_us(views: Views, log: Log) -> int:
    (player,) = await views.read_many([log])
    assert not isinstance(player, Exception)
    assert not player.views
    return player.known_since_us


async def test_an_unknown_player_is_known_from_now_on(
    views: Views, clock: Clock, log: Log
) -> None:
    assert await known_since_us(views, log) == clock.now_us


async def test_a_player_is_known_since_the_oldest_entry(
    views: Views, inbox: Inbox, clock: Clock, log: Log
) -> None:
    first_us = clock.now_us
    await inbox.append(log, [FRAGMENT])
    clock.now_us += 1
    await inbox.append(log, [FRAGMENT])

    assert await known_since_us(views, log) == first_us


async def test_a_player_with_an_empty_log_is_known_since_ever(
    views: Views, inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT])
    await redis.call("DEL", keys_of().inbox(log)[1], write=True)

    assert await known_since_us(views, log) == 0


async def test_a_player_joins_at_a_position(views: Views, log: Log) -> None:
    place = Position(7, 8, 9, 10)

    assert await views.join(log, NEWS, place)

    assert await found(views, log) == [View(NEWS, place)]


async def test_joining_twice_changes_nothing(views: Views, log: Log) -> None:
    await views.join(log, NEWS, ZERO)

    assert not await views.join(log, NEWS, Position(7, 8, 9, 10))

    assert await found(views, log) == [View(NEWS, ZERO)]


async def test_the_number_of_topics_is_limited_everyone_not_counted(
    views: Views, log: Log
) -> None:
    topics = [topic_log(APP, Topic(f"t{n}")) for n in range(TOPICS_MAX + 1)]
    for topic in topics[:-1]:
        assert await views.join(log, topic, ZERO)

    with pytest.raises(LimitReached) as refused:
        await views.join(log, topics[-1], ZERO)

    assert refused.value.limit is Limit.TOPICS_PER_PLAYER
    # Joining again needs no room, everyone is not a topic, and leaving makes room.
    assert not await views.join(log, topics[0], ZERO)
    assert await views.join(log, EVERYONE, ZERO)
    assert await views.leave(log, topics[0])
    assert await views.join(log, topics[-1], ZERO)


async def test_leaving_deletes_the_marks(views: Views, log: Log) -> None:
    for audience in (EVERYONE, NEWS):
        await views.join(log, audience, ZERO)
        await views.change(log, audience, "deleted", [1, 2], epoch=1, floor=1)
    await views.mark_up_to(log, [(NEWS, 9, 1, 1)])
    await views.mute(log, NEWS, muted=True)

    assert await views.leave(log, NEWS)
    assert not await views.leave(log, NEWS)
    await views.join(log, NEWS, ZERO)

    everyone, news = await found(views, log)
    assert news == View(NEWS, ZERO)
    assert everyone.deleted == {1, 2}
    assert await views.read_at_ms(log, [(NEWS, [1, 9])]) == [[0, 0]]


async def test_topics_with_a_common_prefix_are_distinct(views: Views, log: Log) -> None:
    longer = topic_log(APP, Topic("news.eu"))
    for topic in (NEWS, longer, topic_log(APP, Topic("e")), EVERYONE):
        await views.join(log, topic, ZERO)
        await views.change(log, topic, "ids", [1], epoch=1, floor=1)

    await views.leave(log, NEWS)

    left = await found(views, log)
    assert [view.log for view in left] == [
        longer,
        topic_log(APP, Topic("e")),
        EVERYONE,
    ]
    assert all(view.is_done(1) for view in left)


async def test_only_a_joined_audience_can_be_muted(views: Views, log: Log) -> None:
    assert not await views.mute(log, NEWS, muted=True)
    await views.join(log, NEWS, ZERO)

    assert await views.mute(log, NEWS, muted=True)
    assert await found(views, log) == [View(NEWS, ZERO, muted=True)]
    assert await views.mute(log, NEWS, muted=False)
    assert await found(views, log) == [View(NEWS, ZERO)]


async def test_changes_are_announced_and_change_the_version(
    views: Views, inbox: Inbox, redis: RedisConnection, log: Log, store_url: str
) -> None:
    reader, writer = await asyncio.open_unix_connection(
        store_url.removeprefix("unix://")
    )
    writer.write(f"SSUBSCRIBE {keys_of().channel(log)}\r\n".encode())
    await reader.readuntil(b":1\r\n")

    async def changed(change: Any) -> bool:
        before = (await inbox.page(log, count=0)).version
        await change
        return (await inbox.page(log, count=0)).version != before

    assert await changed(views.join(log, NEWS, ZERO))
    assert await changed(views.mute(log, NEWS, muted=True))
    assert not await changed(views.mute(log, NEWS, muted=True))
    assert not await changed(views.join(log, NEWS, ZERO))
    assert await changed(views.leave(log, NEWS))
    # Joining everyone's log changes nothing that is shown.
    assert not await changed(views.join(log, EVERYONE, ZERO, announce=False))
    await redis.call("SPUBLISH", keys_of().channel(log), "end", write=True)
    messages = (await reader.readuntil(b"end\r\n")).split(b"\r\n")
    writer.close()

    assert messages.count(b"audiences") == 3


async def test_marks_of_a_lost_log_do_not_count(
    views: Views, clock: Clock, log: Log
) -> None:
    await views.join(log, NEWS, Position(1, 5, 5, 5))
    await views.change(log, NEWS, "deleted", [8], epoch=1, floor=1)
    await views.mark_up_to(log, [(NEWS, 20, 1, 1)])
    clock.now_ms += 5

    assert await views.change(log, NEWS, "ids", [2], epoch=2, floor=1) == [2]

    (view,) = await found(views, log)
    assert view.joined == Position(2, 0, 0, 0)
    assert [o for o in range(1, 25) if view.is_done(o)] == [2]
    assert view.deleted == frozenset()
    assert await views.read_at_ms(log, [(NEWS, [2, 8])]) == [[clock.now_ms, 0]]


async def test_joining_before_the_first_message_keeps_the_position(
    views: Views, log: Log
) -> None:
    await views.join(log, NEWS, ZERO)

    assert await views.mark_up_to(log, [(NEWS, 2, 4, 1)]) == [[range(1, 3)]]

    (view,) = await found(views, log)
    assert view.joined == Position(4, 0, 0, 0)


async def test_views_without_a_topic_expire(
    views: Views, redis: RedisConnection, clock: Clock, log: Log
) -> None:
    async def lives_ms() -> int:
        left = await redis.call("PTTL", keys_of().views(log))
        assert isinstance(left, int)
        return left

    lifetime = 2 * RETENTION_MS + 2 * DAY_MS
    await views.join(log, EVERYONE, ZERO)
    assert lifetime - 60_000 < await lives_ms() <= lifetime
    await views.join(log, NEWS, ZERO)
    assert await lives_ms() == -1
    await views.leave(log, NEWS)
    assert lifetime - 60_000 < await lives_ms() <= lifetime

    # Reading renews the key.
    await redis.call("PEXPIRE", keys_of().views(log), RETENTION_MS - 1_000, write=True)
    await found(views, log)
    assert lifetime - 60_000 < await lives_ms() <= lifetime


async def test_a_peek_returns_what_the_script_does(views: Views, log: Log) -> None:
    await views.join(log, EVERYONE, Position(7, 1, 2, 3))
    await views.change(log, EVERYONE, "ids", [9, 11], epoch=7, floor=1)
    await views.change(log, EVERYONE, "deleted", [12], epoch=7, floor=1)
    await views.mute(log, EVERYONE, muted=True)

    peeked = views.parse_peek(log, await views._redis.call_many(views.peek(log)))

    assert peeked is not None
    assert peeked.views == (await views.read(log)).views
    (view,) = peeked.views
    assert view.muted
    assert view.deleted == {12}


async def test_a_peek_suffices_only_for_the_view_of_everyone(
    views: Views, log: Log
) -> None:
    async def peeked() -> object:
        return views.parse_peek(log, await views._redis.call_many(views.peek(log)))

    assert await peeked() is None
    await views.join(log, EVERYONE, ZERO)
    assert await peeked() is not None
    await views.join(log, NEWS, ZERO)
    assert await peeked() is None


async def test_reading_renews_views(
    views: Views, redis: RedisConnection, log: Log
) -> None:
    await views.join(log, EVERYONE, ZERO)
    await redis.call("PEXPIRE", keys_of().views(log), RETENTION_MS - 1_000, write=True)

    await views.read_many([log])

    assert await redis.call("PTTL", keys_of().views(log)) > RETENTION_MS


async def test_positions_are_found_by_what_became_of_their_entries(
    views: Views, inbox: Inbox
) -> None:
    places = (await inbox.append(NEWS, [FRAGMENT] * 4)).stored
    await inbox.withdraw(NEWS, places[1])
    control = (await inbox.page(NEWS, count=0)).head
    wrong = [
        places[2]._replace(tag=places[2].tag ^ 1),
        places[2]._replace(at_us=1),
        places[2]._replace(offset=99),
        ZERO,
    ]

    news, everyone = await views.find(
        [(NEWS, [*places, control, *wrong]), (EVERYONE, [*places, ZERO])]
    )

    epoch = places[0].epoch
    assert news == FoundOffsets(epoch, 1, [1, 3, 4], [2], [5], [])
    assert news.kept == [1, 3, 4, 2, 5]
    assert everyone == FoundOffsets(0, 1, [], [], [], [])


async def test_a_position_before_the_oldest_entry_may_be_of_the_log(
    views: Views, inbox: Inbox, clock: Clock
) -> None:
    old = (await inbox.append(NEWS, [FRAGMENT] * 2)).stored
    clock.now_us += RETENTION_MS * 1_000 + 1
    (kept,) = (await inbox.append(NEWS, [FRAGMENT])).stored
    clock.now_us += 1
    later = Position(0, clock.now_us, 1, 1)

    (found,) = await views.find([(NEWS, [*old, kept, later])])

    assert found == FoundOffsets(kept.epoch, 3, [3], [], [], [1, 2])


async def test_the_head_of_a_log_without_entries_is_compared_exactly(
    views: Views, inbox: Inbox, clock: Clock
) -> None:
    old = (await inbox.append(NEWS, [FRAGMENT] * 2)).stored
    clock.now_us += RETENTION_MS * 1_000 + 1
    other = old[1]._replace(tag=old[1].tag ^ 1)

    (found,) = await views.find([(NEWS, [*old, other])])

    assert found == FoundOffsets(old[0].epoch, 3, [], [], [], [1, 2])


async def test_only_a_joined_player_can_mark(views: Views, log: Log) -> None:
    await views.join(log, NEWS, ZERO)

    assert await views.change(log, EVERYONE, "ids", [1], epoch=1, floor=1) == []


class Model:
    """A player's marks in an audience's log, offset by offset."""

    def __init__(self, joined: int) -> None:
        self.joined = joined
        self.read_ms: dict[int, int] = {}
        self.deleted: set[int] = set()

    def first(self, floor: int) -> int:
        return max(floor, self.joined + 1)

    def change(
        self, change: Change, offsets: list[int], floor: int, now_ms: int
    ) -> list[int]:
        changed = []
        for offset in offsets:
            if offset < self.first(floor) or offset in self.deleted:
                continue
            if change == "unread":
                if self.read_ms.pop(offset, None):
                    changed.append(offset)
                continue
            if offset not in self.read_ms:
                self.read_ms[offset] = now_ms
                if change == "ids":
                    changed.append(offset)
            if change == "deleted":
                self.deleted.add(offset)
                changed.append(offset)
        return changed

    def mark_up_to(self, last: int, floor: int, now_ms: int) -> list[int]:
        offsets = range(self.first(floor), last + 1)
        return self.change("ids", [*offsets], floor, now_ms)


steps = st.one_of(
    st.tuples(
        st.sampled_from(["ids", "unread", "deleted"]),
        st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    ),
    st.tuples(st.just("upto"), st.integers(0, 40)),
    st.tuples(st.just("trim"), st.integers(1, 12)),
    st.tuples(st.just("speak"), st.integers(1, 12)),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(
    first=st.sampled_from([0, 8_192, 20_000]),
    joined=st.integers(0, 12),
    todo=st.lists(steps, min_size=1, max_size=14),
)
def test_marks_are_those_of_a_simple_model(
    session_store: str, first: int, joined: int, todo: list[Any]
) -> None:
    asyncio.run(walk(session_store, first, joined, todo))


_players = iter(range(10**9))


async def walk(url: str, first: int, joined: int, todo: list[Any]) -> None:
    redis, clock = RedisConnection(url), Clock()
    views = Views(redis, LogSettings(retention_ms=RETENTION_MS, clock_us=clock))
    log = Log(APP, Player(f"walker-{next(_players)}"))
    model = Model(first + joined)
    floor, head = first + 1, first + 12
    try:
        at = first + joined
        await views.join(log, NEWS, Position(1, at, at, at) if at else ZERO)
        for name, what in todo:
            clock.now_us += 1
            if name == "trim":
                floor = min(floor + what, head + 1)
            elif name == "speak":
                head += what
            elif name == "upto":
                last = min(first + what, head)
                (runs,) = await views.mark_up_to(log, [(NEWS, last, 1, floor)])
                changed = [offset for run in runs for offset in run]
                assert changed == model.mark_up_to(last, floor, clock.now_ms)
            else:
                # The caller has found the entries before.
                offsets = [first + o for o in what if floor <= first + o <= head]
                changed = await views.change(
                    log, NEWS, name, offsets, epoch=1, floor=floor
                )
                assert changed == model.change(name, offsets, floor, clock.now_ms)
            await agree(views, log, model, floor, head)
    finally:
        await redis.close()


async def agree(views: Views, log: Log, model: Model, floor: int, head: int) -> None:
    (view,) = await found(views, log)
    mine = range(model.first(floor), head + 1)
    assert [o for o in mine if view.is_done(o)] == [
        o for o in mine if o in model.read_ms
    ]
    assert [o for o in mine if o in view.deleted] == [
        o for o in mine if o in model.deleted
    ]
    done = [offset for offset in mine if offset in model.read_ms]
    (times,) = await views.read_at_ms(log, [(NEWS, done)])
    assert times == [model.read_ms[offset] for offset in done]


async def test_an_inbox_is_counted_with_its_views_and_next_expiry(
    views: Views, inbox: Inbox, clock: Clock, log: Log
) -> None:
    await views.join(log, NEWS, ZERO)
    await views.join(log, EVERYONE, ZERO)
    ends_ms = clock.now_ms + 1_000
    drafts = [Draft(FRAGMENT), Draft(FRAGMENT), Draft(FRAGMENT, expires_ms=ends_ms)]
    positions = (await inbox.append(log, drafts)).stored
    marked = await inbox.mark_ids(log, positions[:1])

    (count,) = await views.count_many([log])

    assert isinstance(count, PlayerCount)
    assert (count.head, count.unread) == (positions[-1], 2)
    assert (count.marks, count.ends_at_ms) == (marked.marks, ends_ms)
    assert count.views == await found(views, log)
    clock.now_ms += 1_000
    (later,) = await views.count_many([log])
    assert isinstance(later, PlayerCount)
    assert (later.unread, later.ends_at_ms) == (1, 0)


async def test_the_count_of_an_unknown_player_is_empty(views: Views, log: Log) -> None:
    (count,) = await views.count_many([log])

    assert count == PlayerCount(ZERO, 0, 0, 0, [])


async def test_a_count_that_fails_is_an_exception(
    views: Views, redis: RedisConnection, log: Log
) -> None:
    await redis.call("SET", keys_of().views(log), "x", write=True)

    (count,) = await views.count_many([log])

    assert isinstance(count, Exception)


async def test_a_deletion_is_announced_and_a_mark_here_is_not(
    views: Views, redis: RedisConnection, store_url: str, log: Log, until: Until
) -> None:
    recorder = RecordingHandler()
    pubsub = PubSub(store_url, recorder)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    await pubsub.subscribe(log)
    await views.join(log, NEWS, ZERO, announce=False)

    await views.change(log, NEWS, "ids", [1], epoch=1, floor=1)
    await views.change(log, NEWS, "deleted", [2], epoch=1, floor=1)

    await until(lambda: recorder.counted == [log])
    running.cancel()
    await asyncio.wait([running])


RUNS = st.lists(
    st.tuples(
        st.integers(1, 40), st.integers(0, 40), st.sampled_from([-1, 1]), st.booleans()
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=st.sampled_from([0, 65_500, 2**32 - 90]), changes=RUNS)
async def test_a_tally_counts_each_entry_of_a_run(
    views: Views, first: int, changes: list[tuple[int, int, int, bool]]
) -> None:
    audience = topic_log(APP, Topic(f"tally-{next(_players)}"))
    counted = {"read": Counter[int](), "acked": Counter[int]()}
    for begin, length, by, is_read in changes:
        what: Tally = "read" if is_read else "acked"
        run = range(first + begin, first + begin + length)
        await views.count(what, [(audience, [run] if run else [])], by=by)
        for offset in run:
            counted[what][offset] += by

    for offset in range(first + 1, first + 82):
        expected = counted["read"][offset], counted["acked"][offset]
        assert await views.counts(audience, offset) == expected


async def test_a_tally_forgets_what_has_left_the_log(
    views: Views, inbox: Inbox, redis: RedisConnection, clock: Clock
) -> None:
    small = Inbox(redis, LogSettings(clock_us=clock, entries_max=10))
    audience = topic_log(APP, Topic("forgets"))
    await small.append(audience, [FRAGMENT] * 600)
    for offset in range(1, 601):
        await views.count("read", [(audience, [range(offset, offset + 1)])])
        await views.count("acked", [(audience, [range(offset, 601)])])
    key = keys_of().tally(audience)
    for _ in range(4):
        await views.count("read", [(audience, [range(600, 601)])])

    assert int(await redis.call("HLEN", key)) < 1_000
    assert await views.counts(audience, 600) == (5, 600)
    assert await views.counts(audience, 592) == (1, 592)

    # A player who comes back has acknowledged nothing of what has left the log.
    before = set(await redis.call("HKEYS", key))
    await views.count("acked", [(audience, [range(3, 601)])])
    added = set(await redis.call("HKEYS", key)) - before
    assert {int(it.split()[1].partition(b"+")[0]) for it in added} <= {*range(591, 601)}
    assert await views.counts(audience, 600) == (5, 601)

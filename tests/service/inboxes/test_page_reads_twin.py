"""Pages read by plain commands, compared with the same read by scripts."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.access.rights import Caller
from streamer.core.streams.cursor import Cursor
from streamer.core.streams.views import Audience, View
from streamer.errors import NotFound
from streamer.model import Log, Player, Position, Topic, topic_log
from streamer.service.inboxes.merge import MergedInbox
from streamer.service.inboxes.search import InboxSearch
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs import shared_logs
from streamer.store.logs.inbox import Draft, PageEntry
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.settings import DAY_MS
from streamer.store.logs.shared_logs import SharedLog, SharedLogs
from streamer.store.logs.views import parse

from .world import FRAGMENT, World

RARE = b'"type":"rare","title":"t"}'


class Step(NamedTuple):
    """A change, and a number that says what it works on."""

    kind: str
    number: int


KINDS = [
    *["append"] * 6,
    *("replace", "expiring", "pass", "withdraw", "delete", "read", "unread"),
    *("read all", "read up to", "join", "leave", "mute", "lose", "age", "trim"),
]
STEPS = st.lists(
    st.builds(Step, st.sampled_from(KINDS), st.integers(0, 999)),
    min_size=5,
    max_size=40,
)


@pytest.fixture(params=[0, math.inf], ids=["asked", "remembered"])
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the lengths of logs are asked for in each read, or never again."""
    monkeypatch.setattr(shared_logs, "LENGTH_S", request.param)


class Inbox:
    """A world with more topics, and what was sent in it."""

    def __init__(self, world: World, topics: int) -> None:
        self.world = world
        self.topics = [topic_log(world.app, Topic(f"t{n}")) for n in range(topics)]
        self.logs = [world.log, world.everyone, *self.topics]
        self.sent: list[tuple[Log, Position]] = []

    async def append(self, log: Log, **draft: Any) -> None:
        self.world.us += 1
        fragment = RARE if len(self.sent) % 7 == 0 else FRAGMENT
        stored = await self.world.inbox.append(log, [Draft(fragment, **draft)])
        self.sent += [(log, position) for position in stored.stored]

    async def apply(self, step: Step) -> None:
        world, number = self.world, step.number
        log = self.logs[number % len(self.logs)]
        topic = self.topics[number % len(self.topics)]
        player = world.log.player
        if step.kind == "append":
            await self.append(log)
        elif step.kind == "replace":
            await self.append(log, collapse_key="k")
        elif step.kind == "expiring":
            await self.append(log, expires_ms=world.ms + 3)
        elif step.kind == "pass":
            world.us += 2_000
        elif step.kind == "join":
            await world.join(topic)
        elif step.kind == "leave":
            assert topic.topic is not None
            await world.audiences.leave(world.log, topic.topic)
        elif step.kind == "mute":
            await world.views.mute(world.log, topic, muted=number % 2 == 0)
        elif step.kind == "lose":
            await world.redis.call("DEL", *keys_of().inbox(topic), write=True)
        elif step.kind == "age":
            world.us += 31 * DAY_MS * 1_000
        elif step.kind == "trim":
            await world.with_settings(entries_max=2).append(log, [FRAGMENT])
        elif step.kind == "read all":
            await world.inboxes.mark_all(world.me, player)
        elif self.sent:
            log, position = self.sent[number % len(self.sent)]
            if step.kind == "withdraw":
                await world.inbox.withdraw(log, position)
            elif step.kind == "read":
                await world.inboxes.mark_ids(world.me, player, [position.id])
            elif step.kind == "unread":
                await world.inboxes.mark_unread(world.me, player, [position.id])
            elif step.kind == "read up to":
                await world.inboxes.mark_up_to(world.me, player, Cursor(position))
            else:
                await self.delete(position)

    async def delete(self, position: Position) -> None:
        if await self.world.merged.get(self.world.log, position):
            await self.world.delete(position)


async def views_by_script(world: World) -> list[View]:
    reply = await world.redis.run(*world.views.read_call(world.log), write=False)
    stored = parse(world.log, reply)
    return await world.audiences.with_everyone(world.log, stored)


async def shown_by_scripts(world: World) -> tuple[list[tuple[str, int]], int]:
    """Return what the inbox shows, ids and read times, and its unread count."""
    own = await world.inbox.page(world.log, count=1_000)
    shown = [(it.entry.order, it.entry.id, it.read_at_ms) for it in own.entries or ()]
    unread = own.unread
    for view in await views_by_script(world):
        if view.muted:
            continue
        page = await world.inbox.page(view.log, count=1_000)
        (audience,) = await world.inbox.audiences([view.log])
        unread += view.unread(audience)
        of_log = view.at(audience)
        entries = [it.entry for it in page.entries or () if of_log.shows(it.entry)]
        done = [entry.offset for entry in entries if of_log.is_done(entry.offset)]
        (times,) = await world.views.read_at_ms(world.log, [(view.log, done)])
        by_offset = dict(zip(done, times, strict=True))
        shown += [(it.order, it.id, by_offset.get(it.offset, 0)) for it in entries]
    return [(name, at_ms) for _, name, at_ms in sorted(shown, reverse=True)], unread


async def walk(world: World, count: int, **options: Any) -> list[tuple[str, int]]:
    """Read all pages, as a client does."""
    shown: list[tuple[str, int]] = []
    newest, included = None, True
    while True:
        page = await world.merged.page(
            world.log, newest=newest, newest_included=included, count=count, **options
        )
        assert page.entries is not None
        assert len(page.entries) <= count
        shown += [(it.entry.id, it.read_at_ms) for it in page.entries]
        if page.following is None:
            return shown
        if page.entries and len(shown) % 2:
            newest, included = page.entries[-1].entry.position, False
        else:
            newest, included = page.following, True


def rare(entry: PageEntry) -> bool:
    return entry.entry.fragment == RARE


async def check(inbox: Inbox, search: InboxSearch, count: int) -> None:
    world = inbox.world
    expected, unread = await shown_by_scripts(world)
    page = await world.page(count)
    found = [(it.entry.id, it.read_at_ms) for it in page.entries or ()]
    assert found == expected[:count]
    assert page.unread == unread
    assert (page.following is None) <= (len(expected) <= count)
    assert (await world.page(count, version=page.version)).entries is None
    assert await walk(world, count) == expected
    # Which entries of other logs come along is of no interest.
    of_unread = [
        name for name, at_ms in await walk(world, count, only_unread=True) if not at_ms
    ]
    assert of_unread == [name for name, at_ms in expected if not at_ms]
    options: dict[str, Any] = {"newest": None, "oldest": None, "count": count}
    asked = world.me, world.log.player
    remembered, fresh = [
        await it.newest_first(*asked, **options, matches=rare, remembered_as=key)
        for it, key in ((search, "rare"), (InboxSearch(world.inboxes), None))
    ]
    assert remembered.entries == fresh.entries
    # What is passed over on the way to the next match may differ.
    following = [
        page.next
        and await InboxSearch(world.inboxes).newest_first(
            *asked, **options | {"newest": page.next}, matches=rare
        )
        for page in (remembered, fresh)
    ]
    assert [page and page.entries for page in following] == (
        [following[1] and following[1].entries] * 2
    )
    assert remembered.state.cursor == fresh.state.cursor


@pytest.mark.usefixtures("length")
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, count=st.sampled_from([1, 2, 3, 20, 100]), topics=st.integers(1, 5))
async def test_a_page_is_what_the_scripts_say(
    redis: RedisConnection, steps: list[Step], count: int, topics: int
) -> None:
    inbox = Inbox(World(redis), topics)
    search = InboxSearch(inbox.world.inboxes)
    for topic in inbox.topics[1:]:
        await inbox.world.join(topic)
    for step in steps:
        await inbox.apply(step)
        if step.number % 4 == 0:
            await check(inbox, search, count)
    await check(inbox, search, count)


async def test_pages_of_several_players_are_what_a_node_without_memory_reads(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_logs, "LENGTH_S", math.inf)
    world, seed = World(redis), random.Random(1)
    topics = [topic_log(world.app, Topic(f"t{n}")) for n in range(6)]
    players = [Log(world.app, Player(f"p{n}")) for n in range(5)]

    def fresh() -> MergedInbox:
        page_reads = PageReads(redis, world.inbox, world.views)
        return MergedInbox(world.inbox, page_reads, world.audiences)

    for round_ in range(40):
        world.us += 1
        log = seed.choice([*topics, *topics, *players])
        (position, *_) = await world.append(log, seed.choice([1, 1, 3]))
        player = seed.choice(players)
        if round_ < 30:
            topic = seed.choice(topics).topic
            assert topic is not None
            await world.audiences.join(player, topic)
        if seed.random() < 0.2:
            await world.inbox.withdraw(log, position)
        me = Caller(world.app, player.player, frozenset({"notification:player:*"}))
        if seed.random() < 0.3:
            await world.inboxes.mark_ids(me, player.player, [position.id])
        if seed.random() < 0.3:
            with contextlib.suppress(NotFound):
                await world.inboxes.delete(me, player.player, position.id)
        count = seed.choice([1, 2, 5, 20, 100])
        for asked in players:
            page = await world.merged.page(asked, count=count)
            assert page == await fresh().page(asked, count=count)


async def state_of(shared: SharedLogs, world: World, log: Log) -> SharedLog:
    (commands,) = shared.state_commands(log)
    replies = await world.redis.call_many(commands)
    state = shared.parse_states([(log, len(commands))], replies, world.us)[log]
    if state is None:
        (state,) = await shared.read_by_script([log])
    assert isinstance(state, SharedLog)
    if not state.is_complete:
        (state,), _ = await shared.read([(log, state)], [])
    assert isinstance(state, SharedLog)
    return state


def meaning(audience: Audience) -> Any:
    kept = range(audience.floor, audience.head.offset + 1)
    return audience.head, audience.floor, [audience.has_ended(it) for it in kept]


@pytest.mark.usefixtures("length")
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
async def test_the_state_of_a_log_is_what_the_script_says(
    redis: RedisConnection, steps: list[Step]
) -> None:
    world = World(redis)
    inbox = Inbox(world, 1)
    shared = SharedLogs(redis, world.inbox, world.inbox.settings)
    for step in steps:
        await inbox.apply(step)
        state = await state_of(shared, world, inbox.topics[0])
        (by_script,) = await shared.read_by_script([inbox.topics[0]])
        assert isinstance(by_script, SharedLog)
        assert meaning(state.audience) == meaning(by_script.audience)
        assert state.version == by_script.version


OWN_KINDS = [
    *("append", "append", "expiring", "pass", "withdraw", "read", "read all", "trim"),
    *("age", "cut own", "lose own", "join", "mute"),
]
OWN_STEPS = st.lists(
    # Of three logs the player's own is the first.
    st.builds(
        Step, st.sampled_from(OWN_KINDS), st.integers(0, 333).map(lambda n: 3 * n)
    ),
    min_size=5,
    max_size=40,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=OWN_STEPS)
async def test_the_state_of_a_players_own_log_is_what_the_script_says(
    redis: RedisConnection, steps: list[Step]
) -> None:
    world = World(redis)
    inbox, log = Inbox(world, 1), world.log
    page_reads = PageReads(redis, world.inbox, world.views)
    options: dict[str, Any] = {"newest": None, "oldest": None, "count": 5}
    keys = keys_of().inbox(log)
    versions = ["0.0.0.1.0.0"] * 2
    for step in steps:
        if step.kind == "cut own":
            await redis.call("XTRIM", keys.log, "MAXLEN", 1, write=True)
        elif step.kind == "lose own":
            await redis.call("DEL", *keys, write=True)
        else:
            await inbox.apply(step)
        of_version = [
            (await page_reads.read(log, **options, version=version)).own
            for version in versions
        ]
        of_unread = (await page_reads.read(log, **options, only_unread=True)).own

        whole = await world.inbox.page(log, count=5)
        for version, page in zip(versions, of_version, strict=True):
            assert page.version == whole.version
            if version == whole.version:
                assert page.entries is None
            else:
                assert page == whole
        if whole.unread:
            assert of_unread == whole
        else:
            assert of_unread == whole._replace(entries=[], following=None)
        if versions[-1] != whole.version:
            versions = [versions[-1], whole.version]


async def test_a_bitmap_that_moves_between_two_packets_is_read_by_the_script(
    world: World,
) -> None:
    log = world.news
    shared = SharedLogs(world.redis, world.inbox, world.inbox.settings)
    (place,) = await world.append(log)
    await world.inbox.withdraw(log, place)
    (commands,) = shared.state_commands(log)
    replies = await world.redis.call_many(commands)
    state = shared.parse_states([(log, len(commands))], replies, world.us)[log]
    assert isinstance(state, SharedLog)
    keys = keys_of().inbox(log)
    # As after 8,192 entries.
    await world.redis.call("HSET", keys.state, "base", "8", write=True)

    (moved,), _ = await shared.read([(log, state)], [])

    assert isinstance(moved, SharedLog)
    assert moved.audience.base == 8
    assert moved.audience.head == state.audience.head


@pytest.mark.parametrize("between", [0, 1])
async def test_an_append_between_two_lengths_leaves_the_log_to_the_script(
    world: World, between: int
) -> None:
    log = world.news
    shared = SharedLogs(world.redis, world.inbox, world.inbox.settings)
    await world.append(log, 3)
    (commands,) = shared.state_commands(log)
    replies = await world.redis.call_many(commands)
    replies[2] += between

    state = shared.parse_states([(log, len(commands))], replies, world.us)[log]

    assert (state is None) == bool(between)

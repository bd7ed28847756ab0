"""
What requests cost the store, counted: commands, those of scripts included, and bytes.

Counts do not depend on the machine. None may grow with what is kept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from streamer.core.streams.cursor import Cursor
from streamer.model import Log, Topic, topic_log
from streamer.service.inboxes import merge
from streamer.service.inboxes.search import InboxSearch
from streamer.store.client.connection import RedisConnection
from streamer.store.logs import shared_logs
from streamer.store.logs.inbox import PageEntry

from .world import FRAGMENT, World

KEPT = 10_000
TOPICS = 16
LONG = b'"type":"t","title":"t","body":"%b"}' % (b"x" * 160)


@pytest.fixture(autouse=True)
def lengths_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine asks for no length more often than a fast one."""
    monkeypatch.setattr(shared_logs, "LENGTH_S", math.inf)


class Cost(Counter[str]):
    """Commands by name, and ``bytes`` that came back."""

    @property
    def commands(self) -> int:
        return self.total() - self["bytes"] - self["evalsha"]


_STAT = re.compile(r"cmdstat_([^:]+):calls=(\d+)")


class Meter:
    """Counts what one connection makes the store do."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis

    async def _read(self) -> Cost:
        stats = (await self._redis.call("INFO", "commandstats")).decode()
        cost = Cost({name: int(calls) for name, calls in _STAT.findall(stats)})
        network = (await self._redis.call("INFO", "stats")).decode()
        found = re.search(r"total_net_output_bytes:(\d+)", network)
        assert found is not None
        cost["bytes"] = int(found[1])
        del cost["info"]
        return cost

    async def cost(self, act: Callable[[], Awaitable[Any]]) -> Cost:
        await self._read()
        before = await self._read()
        bare = await self._read()
        await act()
        after = await self._read()
        cost = Cost({name: after[name] - bare[name] for name in after})
        # The counters themselves are answers, too.
        cost["bytes"] -= bare["bytes"] - before["bytes"]
        return Cost({name: count for name, count in cost.items() if count})


class Inbox:
    """The inbox of one player with topics, and all that can be asked of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.search = InboxSearch(world.inboxes)
        self.topics: list[Log] = []

    async def fill(self, *, own: int, topics: int, per_topic: int) -> None:
        world = self.world
        self.topics = [topic_log(world.app, Topic(f"t{n}")) for n in range(topics)]
        await world.page()
        for topic in self.topics:
            await world.join(topic)
        # The newest entries in turns, so that they are of all logs.
        recent, rounds = 10, 10
        sizes = [(world.log, own), *((topic, per_topic) for topic in self.topics)]
        for log, count in sizes:
            await self._append(log, max(0, count - rounds * recent))
        for _ in range(rounds):
            for log, count in sizes:
                await self._append(log, min(count // rounds, recent))

    async def _append(self, log: Log, count: int) -> None:
        for first in range(0, count, 500):
            self.world.us += 1
            many = [LONG] * min(500, count - first)
            await self.world.inbox.append(log, many)

    async def page(self, **options: Any) -> Any:
        options = {
            "newest": None,
            "oldest": None,
            "count": 20,
            "matches": None,
        } | options
        return await self.search.newest_first(
            self.world.me, self.world.log.player, **options
        )


def is_unread(entry: PageEntry) -> bool:
    return not entry.read_at_ms


def is_rare(entry: PageEntry) -> bool:
    return b'"type":"rare"' in entry.entry.fragment


ASKED: dict[str, Callable[[Inbox], Awaitable[Any]]] = {
    "page": lambda inbox: inbox.page(),
    "unread": lambda inbox: inbox.page(matches=is_unread, only_unread=True),
    "limit": lambda inbox: inbox.page(count=100),
    "filter": lambda inbox: inbox.page(matches=is_rare, remembered_as="rare"),
}


async def costs_of(inbox: Inbox) -> dict[str, Cost]:
    meter = Meter(inbox.world.redis)
    costs = {}
    version = (await inbox.page()).state.version
    asked = ASKED | {"304": lambda inbox: inbox.page(version=version)}
    for name, ask in asked.items():
        # The first one learns what the others know.
        await ask(inbox)
        costs[name] = await meter.cost(lambda ask=ask: ask(inbox))  # type: ignore[misc]
    return costs


async def marked(world: World, **sizes: int) -> Inbox:
    inbox = Inbox(world)
    await inbox.fill(**sizes)
    await world.inboxes.mark_all(world.me, world.log.player)
    return inbox


async def test_no_read_costs_more_where_more_is_kept(redis: RedisConnection) -> None:
    small = await marked(World(redis), own=200, topics=TOPICS, per_topic=200)
    few = await costs_of(small)
    large = await marked(World(redis), own=KEPT, topics=TOPICS, per_topic=2_000)
    many = await costs_of(large)

    for name, cost in many.items():
        assert cost.commands <= few[name].commands + 2, name
        assert cost["evalsha"] == few[name]["evalsha"], name
        assert cost["bytes"] <= few[name]["bytes"] * 1.1 + 500, name


@pytest.mark.parametrize(
    ("name", "scripts", "commands", "size"),
    [
        # One state of each of 17 logs, and for the player a script of six commands, the
        # entries, the views and the times of read marks. Of the logs nothing is read
        # again, but for a long page.
        ("page", 1, 30, 20_000),
        ("304", 0, 24, 2_000),
        ("unread", 0, 24, 2_000),
        ("limit", 1, 47, 120_000),
        ("filter", 1, 30, 5_000),
    ],
)
async def test_a_read_over_17_logs_costs_few_commands_and_at_most_one_script(
    redis: RedisConnection, name: str, scripts: int, commands: int, size: int
) -> None:
    inbox = await marked(World(redis), own=1_000, topics=TOPICS, per_topic=200)

    cost = (await costs_of(inbox))[name]

    assert cost["evalsha"] == scripts
    assert cost.commands <= commands, cost
    assert cost["bytes"] <= size, cost


async def test_a_page_that_has_changed_is_read_by_one_script(
    redis: RedisConnection,
) -> None:
    world = World(redis)
    inbox = Inbox(world)
    await inbox.fill(own=100, topics=0, per_topic=0)
    version = (await inbox.page()).state.version
    await inbox.page(version=version)
    await world.append(world.log)

    cost = await Meter(redis).cost(lambda: inbox.page(version=version))

    assert cost["evalsha"] == 1
    assert cost["xrevrange"] == 1


async def test_the_oldest_of_17_logs_cost_few_of_their_entries(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = await marked(World(redis), own=1_000, topics=TOPICS, per_topic=200)
    world = inbox.world

    async def oldest() -> Any:
        return await inbox.search.oldest_first(
            world.me, world.log.player, after=None, count=20, matches=None
        )

    await oldest()
    cost = await Meter(redis).cost(oldest)
    monkeypatch.setattr(merge, "MANY_LOGS", 10**9)
    whole = await Meter(redis).cost(oldest)

    # A second read goes on in a part of the logs.
    assert whole["evalsha"] < cost["evalsha"] <= whole["evalsha"] + 10, cost
    assert cost["bytes"] <= 0.7 * whole["bytes"], (cost, whole)


async def test_marking_everything_fills_ranges(redis: RedisConnection) -> None:
    costs = []
    for kept in (100, KEPT):
        inbox = Inbox(World(redis))
        await inbox.fill(own=kept, topics=2, per_topic=kept)
        world = inbox.world
        meter = Meter(redis)
        costs.append(
            await meter.cost(
                lambda world=world: world.inboxes.mark_all(  # type: ignore[misc]
                    world.me, world.log.player
                )
            )
        )
        assert (await world.page()).unread == 0
    few, many = costs
    # More blocks of the tallies: two for each doubling.
    assert many.commands <= few.commands + 100, (few, many)
    assert many["bytes"] <= few["bytes"] + 500


async def test_marking_again_what_was_marked_unread_is_written_in_bulk(
    redis: RedisConnection,
) -> None:
    inbox = Inbox(World(redis))
    await inbox.fill(own=2_000, topics=0, per_topic=0)
    world = inbox.world
    await world.inboxes.mark_all(world.me, world.log.player)
    page = await inbox.page(count=100)
    names = [entry.entry.id for entry in page.entries]
    await world.inboxes.mark_unread(world.me, world.log.player, names)
    meter = Meter(redis)

    cost = await meter.cost(lambda: world.inboxes.mark_all(world.me, world.log.player))

    assert cost["hset"] <= 5
    assert cost["setbit"] <= 8


async def test_a_player_who_marked_each_entry_has_a_cheap_page(
    redis: RedisConnection,
) -> None:
    world = World(redis)
    positions = (await world.inbox.append(world.log, [FRAGMENT] * 300)).stored
    for first in range(0, 300, 100):
        await world.inbox.mark_ids(world.log, positions[first : first + 100])
    await world.append(world.log)
    await world.inboxes.mark_up_to(world.me, world.log.player, Cursor(positions[-1]))
    await world.inboxes.mark_all(world.me, world.log.player)
    inbox = Inbox(world)

    cost = await Meter(redis).cost(inbox.page)

    assert cost["hgetall"] == 0

"""
The retention, to the microsecond, on every path that works on a log.

An entry is in the log up to exactly the retention after its time, and no longer. No
operation before the one under test has noticed its age.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from streamer.core.streams.subscription import Start
from streamer.model import ZERO, Log, Position
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.mutes import Mutes
from streamer.store.logs.numbered import NumberedLists
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.receipts import ReceiptStore
from streamer.store.logs.settings import DAY_MS, LogSettings
from streamer.store.logs.views import Views

from ...clock import NOON_US, Clock

RETENTION_MS = 3 * DAY_MS


class World:
    """A log with one entry, "old", and every way to use it."""

    def __init__(self, redis: RedisConnection, clock: Clock, log: Log) -> None:
        settings = LogSettings(retention_ms=RETENTION_MS, clock_us=clock)
        self.redis = redis
        self.log = log
        self.inbox = Inbox(redis, settings)
        self.lists = NumberedLists(redis, settings)
        self.receipts = ReceiptStore(redis, settings)
        self.views = Views(redis, settings)
        self.old = ZERO

    async def append(self, fragment: bytes, **facts: str) -> Position:
        draft = Draft(fragment, collapse_key=facts.get("key", ""))
        (place,) = (await self.inbox.append(self.log, [draft])).stored
        return place

    async def stored(self) -> int:
        """Return how many items the log has, whatever their age."""
        return int(await self.redis.call("XLEN", keys_of().inbox(self.log).log))


Path = Callable[[World], Awaitable[bool]]
"""Uses a log, and returns whether it has the old entry."""


async def append(world: World) -> bool:
    await world.append(b"new")
    return await world.stored() == 2


async def append_with_a_muted_type(world: World) -> bool:
    await Mutes(world.redis).mute(world.log, "other")
    return await append(world)


async def collapse(world: World) -> bool:
    await world.append(b"new", key="k")
    page = await world.inbox.page(world.log, count=1)
    assert page.entries is not None
    return page.entries[0].entry.replaces == world.old.id


async def page(world: World) -> bool:
    found = await world.inbox.page(world.log, count=9)
    assert found.unread == len(found.entries or ())
    return found.unread == 1


async def page_from_the_position(world: World) -> bool:
    found = await world.inbox.page(world.log, newest=world.old, count=9)
    return bool(found.entries)


async def first_page(world: World) -> bool:
    reads = PageReads(world.redis, world.inbox, world.views)
    found = await reads.read(world.log, newest=None, oldest=None, count=9)
    assert found.own.unread == len(found.own.entries or ())
    return found.own.unread == 1


async def read_after_the_beginning(world: World) -> bool:
    read = await world.inbox.read_after(world.log, ZERO, count=9)
    assert (read.history.gap is None) == bool(read.history.entries)
    return bool(read.history.entries)


async def read_from_the_earliest(world: World) -> bool:
    read = await world.inbox.read_after(world.log, Start.EARLIEST, count=9)
    return bool(read.history.entries)


async def unread_count(world: World) -> bool:
    read = await world.inbox.read_after(world.log, Start.LATEST, count=0)
    return read.unread == 1


async def numbered_list(world: World) -> bool:
    found = await world.lists.page(world.log, skip=0, count=9)
    assert found.total == len(found.entries)
    return found.total == 1


async def numbered_list_of_an_offset(world: World) -> bool:
    found = await world.lists.page(world.log, skip=0, count=9, offsets=[1])
    return found.total == 1


async def mark_ids(world: World) -> bool:
    return (await world.inbox.mark_ids(world.log, [world.old])).changed == 1


async def mark_up_to(world: World) -> bool:
    return (await world.inbox.mark_up_to(world.log, world.old)).changed == 1


async def mark_all(world: World) -> bool:
    return (await world.inbox.mark_all(world.log)).changed == 1


async def withdraw(world: World) -> bool:
    return await world.inbox.withdraw(world.log, world.old) is not None


async def receipt(world: World) -> bool:
    return await world.receipts.of(world.log, world.old) is not None


async def acknowledge(world: World) -> bool:
    return await world.receipts.acknowledge(world.log, world.old)


async def audience(world: World) -> bool:
    (state,) = await world.inbox.audiences([world.log])
    return state.floor == 1


async def find(world: World) -> bool:
    (found,) = await world.views.find([(world.log, [world.old])])
    assert found.floor == (1 if found.live else 2)
    return bool(found.live)


PATHS: list[Path] = [
    append,
    append_with_a_muted_type,
    collapse,
    page,
    page_from_the_position,
    first_page,
    read_after_the_beginning,
    read_from_the_earliest,
    unread_count,
    numbered_list,
    numbered_list_of_an_offset,
    mark_ids,
    mark_up_to,
    mark_all,
    withdraw,
    receipt,
    acknowledge,
    audience,
    find,
]


@pytest.mark.parametrize("late_us", [0, 1])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
async def test_an_entry_leaves_its_log_a_microsecond_after_the_retention(
    redis: RedisConnection, clock: Clock, log: Log, path: Path, late_us: int
) -> None:
    clock.now_us = NOON_US + 999
    world = World(redis, clock, log)
    world.old = await world.append(b"old", key="k")
    clock.now_us += RETENTION_MS * 1_000 + late_us

    assert await path(world) == (late_us == 0)


@pytest.mark.parametrize("late_us", [0, 1])
async def test_an_entry_can_be_marked_as_unread_until_it_leaves_its_log(
    redis: RedisConnection, clock: Clock, log: Log, late_us: int
) -> None:
    world = World(redis, clock, log)
    world.old = await world.append(b"old")
    await world.inbox.mark_all(log)
    clock.now_us += RETENTION_MS * 1_000 + late_us

    marked = await world.inbox.mark_unread(log, [world.old])

    assert (marked.changed, marked.unread) == ((1, 1) if late_us == 0 else (0, 0))


async def test_the_first_entry_of_a_new_player_decides_since_when_it_is_known(
    redis: RedisConnection, clock: Clock, log: Log
) -> None:
    world = World(redis, clock, log)
    clock.now_us += 1
    world.old = await world.append(b"old")
    clock.now_us += RETENTION_MS * 1_000

    assert (await world.views.read(log)).known_since_us == NOON_US + 1

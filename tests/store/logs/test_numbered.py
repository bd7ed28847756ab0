from __future__ import annotations

import random
from typing import Any

import pytest

from streamer.model import App, Entry, Log, Notification, Player, encode_fragment
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.numbered import NumberedLists
from streamer.store.logs.settings import DAY_MS, LogSettings

from ...clock import NOON_US, Clock

LOG = Log(App("demo"), Player("alice"))


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(retention_ms=DAY_MS, clock_us=clock))


@pytest.fixture
def lists(redis: RedisConnection, clock: Clock) -> NumberedLists:
    return NumberedLists(redis, LogSettings(retention_ms=DAY_MS, clock_us=clock))


def fragments(count: int) -> list[bytes]:
    return [encode_fragment(Notification(data=i)) for i in range(count)]


def entries(listed: Any) -> list[Entry]:
    return [found.entry for found in listed.entries]


def offsets(listed: Any) -> list[int]:
    return [entry.offset for entry in entries(listed)]


async def test_a_missing_log_lists_nothing(lists: NumberedLists) -> None:
    for read in (None, True, False):
        assert await lists.page(LOG, skip=0, count=10, read=read) == (0, [])
    assert [item async for item in lists.walk(LOG)] == []


@pytest.mark.parametrize("seed", range(6))
async def test_a_numbered_page_is_a_slice_of_the_whole_page(
    inbox: Inbox, lists: NumberedLists, clock: Clock, seed: int
) -> None:
    # Equal and distinct times, single marks and marks of ranges.
    rng = random.Random(seed)
    for _ in range(40):
        await inbox.append(LOG, fragments(rng.choice([1, 2, 20])))
        clock.now_ms += rng.choice([0, 1, 7, 60_000])
    whole = (await inbox.page(LOG, count=10_000)).entries
    assert whole is not None
    await inbox.mark_up_to(LOG, rng.choice(whole[100:]).entry.position)
    marked = rng.sample(whole, rng.choice([1, len(whole) // 2, len(whole) - 5]))
    await inbox.mark_ids(LOG, [found.entry.position for found in marked])
    whole = (await inbox.page(LOG, count=10_000)).entries
    assert whole is not None

    for read in (None, True, False):
        matching = [e for e in whole if read is None or bool(e.read_at_ms) is read]
        for skip in (0, 1, 99, len(matching) - 1, len(matching)):
            for count in (0, 1, 100, 10_000):
                listed = await lists.page(
                    LOG, skip=max(0, skip), count=count, read=read
                )
                assert listed.total == len(matching)
                assert listed.entries == matching[max(0, skip) :][:count]


async def test_only_the_given_offsets_are_considered(
    inbox: Inbox, lists: NumberedLists
) -> None:
    await inbox.append(LOG, fragments(300))
    await inbox.mark_ids(LOG, (await inbox.append(LOG, fragments(1))).stored)
    given = [400, 301, 300, 200, 199, 2, 1, 0]

    listed = await lists.page(LOG, skip=1, count=3, offsets=given)
    assert (listed.total, offsets(listed)) == (6, [300, 200, 199])
    listed = await lists.page(LOG, skip=1, count=9, read=False, offsets=given)
    assert (listed.total, offsets(listed)) == (5, [200, 199, 2, 1])


async def test_entries_older_than_the_retention_are_not_listed(
    inbox: Inbox, lists: NumberedLists, clock: Clock
) -> None:
    await inbox.append(LOG, fragments(3))
    clock.now_ms += DAY_MS
    await inbox.append(LOG, fragments(2))
    clock.now_ms += 1

    listed = await lists.page(LOG, skip=0, count=10)
    assert (listed.total, offsets(listed)) == (2, [5, 4])
    assert (await lists.page(LOG, skip=0, count=10, offsets=[5, 3])).total == 1


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_a_walk_yields_every_entry_once(
    inbox: Inbox, lists: NumberedLists, count: int
) -> None:
    if count:
        await inbox.append(LOG, fragments(count))

    walked = [item async for item in lists.walk(LOG)]

    assert [offset for offset, _ in walked] == list(range(count, 0, -1))
    assert [fragment for _, fragment in walked] == fragments(count)[::-1]


async def test_a_hole_in_a_log_is_skipped(
    inbox: Inbox, lists: NumberedLists, redis: RedisConnection
) -> None:
    await inbox.append(LOG, fragments(3))
    await redis.call("XDEL", keys_of().inbox(LOG).log, f"{NOON_US}-2", write=True)

    assert offsets(await lists.page(LOG, skip=0, count=10)) == [3, 1]
    assert offsets(await lists.page(LOG, skip=1, count=1)) == []


async def test_a_walk_passes_over_what_was_purged(
    inbox: Inbox, lists: NumberedLists
) -> None:
    texts = fragments(3)
    positions = (await inbox.append(LOG, texts)).stored

    await inbox.purge(LOG, positions[1])

    assert [text async for _, text in lists.walk(LOG)] == [texts[2], texts[0]]

"""The reads of one page, on a real store."""

from __future__ import annotations

import pytest

from streamer.model import Log, Player, everyone_log
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs import page_reads as page_reads_module
from streamer.store.logs.entries import Page
from streamer.store.logs.inbox import PAGE_BYTES, Inbox
from streamer.store.logs.page_reads import EARLY_ITEMS, HEAVY_BYTES, PageReads
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.shared_logs import Damaged, SharedLog
from streamer.store.logs.views import Views

FRAGMENT = b'"title":"t"}'
ALL = ("+", "-")


@pytest.fixture
def inbox(redis: RedisConnection) -> Inbox:
    return Inbox(redis)


@pytest.fixture
def page_reads(redis: RedisConnection, inbox: Inbox) -> PageReads:
    return PageReads(redis, inbox, Views(redis, LogSettings()))


async def everyone_in(page_reads: PageReads, log: Log) -> SharedLog | Damaged:
    page = await page_reads.read(log, newest=None, oldest=None, count=5)
    return page.shared[everyone_log(log.app)]


async def by_script(page_reads: PageReads, log: Log) -> SharedLog | Damaged:
    """Read the state of a log by the script."""
    (state,) = await page_reads._shared_logs.read_by_script([log])
    return state


async def test_an_app_without_a_log_for_everyone_reads_as_by_script(
    page_reads: PageReads, log: Log
) -> None:
    everyone = everyone_log(log.app)

    assert await everyone_in(page_reads, log) == await by_script(page_reads, everyone)


async def test_the_first_message_to_everyone_is_in_the_next_page(
    page_reads: PageReads, inbox: Inbox, log: Log
) -> None:
    everyone = everyone_log(log.app)
    await everyone_in(page_reads, log)

    for count in (1, 2):
        await inbox.append(everyone, [FRAGMENT])
        state = await everyone_in(page_reads, log)
        assert isinstance(state, SharedLog)
        assert state.audience.head.offset == count
        assert state._replace(newest=None) == await by_script(page_reads, everyone)


async def test_an_app_whose_log_for_everyone_is_lost_reads_as_empty(
    page_reads: PageReads, inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(everyone_log(log.app), [FRAGMENT])
    await everyone_in(page_reads, log)

    await redis.call("FLUSHALL", write=True)

    state = await everyone_in(page_reads, log)
    assert isinstance(state, SharedLog)
    assert state.audience.head.is_zero


# Pages of a player's log, whose entries are read beside the script.


async def first(page_reads: PageReads, log: Log, count: int = 5) -> Page:
    return (await page_reads.read(log, newest=None, oldest=None, count=count)).own


async def test_entries_of_a_first_page_bypass_the_script(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT] * 30)
    call = inbox.page_beside_call(log, ALL, 20)
    command = ("XREVRANGE", keys_of().inbox(log).log, *ALL, "COUNT", 21)

    reply, items = await redis.run_many([call], write=False, after=[command])

    assert len(reply) == 5
    assert len(items) == 21
    assert inbox.parse_page_beside(reply, items, 20) == await inbox.page(log, count=20)


async def test_a_first_page_has_the_marks_of_its_entries(
    page_reads: PageReads, inbox: Inbox, log: Log
) -> None:
    places = (await inbox.append(log, [FRAGMENT] * 10)).stored
    await inbox.mark_up_to(log, places[6])
    await inbox.mark_ids(log, [places[8]])

    page = await first(page_reads, log)

    assert [item.read_at_ms > 0 for item in page.entries or ()] == [
        *(False, True, False, True, True)
    ]
    assert page == await inbox.page(log, count=5)


async def test_a_first_page_omits_ended_entries(
    page_reads: PageReads, inbox: Inbox, log: Log
) -> None:
    places = (await inbox.append(log, [FRAGMENT] * 10)).stored
    await inbox.withdraw(log, places[8])

    page = await first(page_reads, log)

    assert [item.entry.offset for item in page.entries or ()] == [10, 8, 7, 6, 5]


@pytest.mark.parametrize("size", [1_000_000, PAGE_BYTES + 1])
async def test_a_first_page_of_large_entries_is_shorter(
    page_reads: PageReads, inbox: Inbox, log: Log, size: int
) -> None:
    large = b'"body":"%b"}' % (b"x" * size)
    for _ in range(6):
        await inbox.append(log, [large])

    page = await first(page_reads, log, count=6)

    assert len(page.entries or ()) == max(1, PAGE_BYTES // size)
    assert page == await inbox.page(log, count=6)


@pytest.mark.parametrize("before", [0, 3, 8])
async def test_an_append_between_script_and_entries_is_noticed(
    inbox: Inbox, redis: RedisConnection, log: Log, before: int
) -> None:
    if before:
        await inbox.append(log, [FRAGMENT] * before)
    call = inbox.page_beside_call(log, ALL, 5)
    command = ("XREVRANGE", keys_of().inbox(log).log, *ALL, "COUNT", 6)
    reply = await redis.run(*call, write=False)
    await inbox.append(log, [FRAGMENT])

    assert inbox.parse_page_beside(reply, await redis.call(*command), 5) is None


async def test_an_expiry_between_script_and_entries_is_noticed(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT] * 4)
    call = inbox.page_beside_call(log, ALL, 5)
    command = ("XREVRANGE", keys_of().inbox(log).log, *ALL, "COUNT", 6)
    reply = await redis.run(*call, write=False)
    await redis.call("XTRIM", keys_of().inbox(log).log, "MAXLEN", 3, write=True)

    assert inbox.parse_page_beside(reply, await redis.call(*command), 5) is None


async def test_a_first_page_that_changed_meanwhile_is_read_again(
    page_reads: PageReads, inbox: Inbox, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inbox.append(log, [FRAGMENT])
    monkeypatch.setattr(inbox, "parse_page_beside", lambda *_, **options: None)

    assert await first(page_reads, log) == await inbox.page(log, count=5)


async def test_a_long_page_of_small_entries_is_read_at_once_the_second_time(
    page_reads: PageReads, inbox: Inbox, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inbox.append(log, [FRAGMENT] * 150)
    later = list[object]()
    call = page_reads._redis.call

    async def count_call(*command: str | bytes | int) -> object:
        later.append(command[-1])
        return await call(*command)

    monkeypatch.setattr(page_reads._redis, "call", count_call)

    expected = await inbox.page(log, count=100)
    later.clear()
    assert await first(page_reads, log, count=100) == expected
    assert later == [101 - EARLY_ITEMS]
    assert await first(page_reads, log, count=100) == expected
    assert later == [101 - EARLY_ITEMS]


async def test_a_page_of_entries_that_have_become_large_is_read_in_portions_again(
    page_reads: PageReads, inbox: Inbox, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT] * 150)
    await first(page_reads, log, count=100)
    assert page_reads._small == {log}
    large = b'"body":"%b"}' % (b"x" * 2 * HEAVY_BYTES)
    await inbox.append(log, [large] * 150)

    assert await first(page_reads, log, count=100) == await inbox.page(log, count=100)

    assert page_reads._small == set()
    assert await first(page_reads, log, count=100) == await inbox.page(log, count=100)


async def test_players_with_small_entries_are_forgotten_at_the_limit(
    page_reads: PageReads, inbox: Inbox, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reads_module, "PLAYERS_MAX", 1)
    other = Log(log.app, Player("other"))
    for asked in (log, other):
        await inbox.append(asked, [FRAGMENT] * 2)
        await first(page_reads, asked, count=100)

    assert page_reads._small == {other}

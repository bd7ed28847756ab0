"""The reads of one page, on a real store."""

from __future__ import annotations

import pytest

from streamer.model import App, Log, everyone_log
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.entries import Page
from streamer.store.logs.inbox import PAGE_BYTES, Inbox
from streamer.store.logs.page_reads import AudiencePage, PageReads
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

FRAGMENT = b'"title":"t"}'


@pytest.fixture
def inbox(redis: RedisConnection) -> Inbox:
    return Inbox(redis)


@pytest.fixture
def page_reads(redis: RedisConnection, inbox: Inbox) -> PageReads:
    return PageReads(redis, inbox, Views(redis, LogSettings()))


async def everyone_in(page_reads: PageReads, log: Log) -> AudiencePage:
    return (await page_reads.read(log, newest=None, oldest=None, count=5)).everyone


async def read(page_reads: PageReads, app: App) -> AudiencePage:
    """Read the page of everyone's log by the scripts."""
    asked = [(everyone_log(app), None)]
    (part,) = await page_reads.audience_pages(asked, newest=None, count=5)
    return part


async def test_an_app_without_a_log_for_everyone_reads_as_by_script(
    page_reads: PageReads, log: Log
) -> None:
    assert await everyone_in(page_reads, log) == await read(page_reads, log.app)


async def test_the_first_message_to_everyone_is_in_the_next_page(
    page_reads: PageReads, inbox: Inbox, log: Log
) -> None:
    await everyone_in(page_reads, log)

    await inbox.append(everyone_log(log.app), [FRAGMENT])
    first = await everyone_in(page_reads, log)
    await inbox.append(everyone_log(log.app), [FRAGMENT])
    second = await everyone_in(page_reads, log)

    assert len(first.page.entries or ()) == 1
    assert len(second.page.entries or ()) == 2
    assert second == await read(page_reads, log.app)


async def test_an_app_whose_log_for_everyone_is_lost_reads_as_empty(
    page_reads: PageReads, inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(everyone_log(log.app), [FRAGMENT])
    await everyone_in(page_reads, log)

    await redis.call("FLUSHALL", write=True)

    assert (await everyone_in(page_reads, log)).page.head.is_zero


# The first page, whose entries are read after the script.


async def first(page_reads: PageReads, log: Log, count: int = 5) -> Page:
    return (await page_reads.read(log, newest=None, oldest=None, count=count)).own


async def test_entries_of_a_first_page_bypass_the_script(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT] * 30)
    call, command = inbox.first_page_call(log, 20)

    reply, items = await redis.run_many([call], write=False, after=[command])

    assert len(reply) == 5
    assert len(items) == 21
    assert inbox.parse_first_page(reply, items, 20) == await inbox.page(log, count=20)


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
    call, command = inbox.first_page_call(log, 5)
    reply = await redis.run(*call, write=False)
    await inbox.append(log, [FRAGMENT])

    assert inbox.parse_first_page(reply, await redis.call(*command), 5) is None


async def test_an_expiry_between_script_and_entries_is_noticed(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await inbox.append(log, [FRAGMENT] * 4)
    call, command = inbox.first_page_call(log, 5)
    reply = await redis.run(*call, write=False)
    await redis.call("XTRIM", keys_of().inbox(log).log, "MAXLEN", 3, write=True)

    assert inbox.parse_first_page(reply, await redis.call(*command), 5) is None


async def test_a_first_page_that_changed_meanwhile_is_read_again(
    page_reads: PageReads, inbox: Inbox, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await inbox.append(log, [FRAGMENT])
    monkeypatch.setattr(inbox, "parse_first_page", lambda *_: None)

    assert await first(page_reads, log) == await inbox.page(log, count=5)

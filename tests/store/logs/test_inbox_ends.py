"""Entries that end: withdrawn, replaced and expired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamer.core.streams.subscription import Start
from streamer.model import Entry, Log, Position, everyone_log
from streamer.store.client.connection import RedisConnection
from streamer.store.client.pubsub import PubSub
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox, Once
from streamer.store.logs.numbered import NumberedLists
from streamer.store.logs.settings import DAY_MS, LogSettings

from ...clock import NOON, Clock
from ...conftest import Until
from ..recording import RecordingHandler


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(retention_ms=DAY_MS, clock_us=clock))


@pytest.fixture
def lists(redis: RedisConnection, clock: Clock) -> NumberedLists:
    return NumberedLists(redis, LogSettings(retention_ms=DAY_MS, clock_us=clock))


async def put(inbox: Inbox, log: Log, *drafts: Draft | bytes) -> list[Position]:
    return (await inbox.append(log, drafts)).stored


async def page_fragments(inbox: Inbox, log: Log) -> list[bytes]:
    """Return the fragments of a page, newest first."""
    page = await inbox.page(log, count=100)
    return [found.entry.fragment for found in page.entries or ()]


async def read_entries(inbox: Inbox, log: Log) -> list[Entry]:
    """Return the entries that a reader of the whole log gets."""
    read = await inbox.read_after(log, Start.EARLIEST, count=100)
    return read.history.entries


async def unread(inbox: Inbox, log: Log) -> int:
    return (await inbox.page(log, count=0)).unread


def id_of(place: Position) -> str:
    return place.id


# Withdrawing.


async def test_a_withdrawn_entry_is_hidden_and_a_control_entry_appended(
    inbox: Inbox, log: Log
) -> None:
    first, second = await put(inbox, log, b"1", b"2")

    withdrawn = await inbox.withdraw(log, first)

    assert withdrawn is not None
    assert withdrawn.done
    assert await page_fragments(inbox, log) == [b"2"]
    assert await unread(inbox, log) == 1
    gone, kept, note = await read_entries(inbox, log)
    assert (gone.ended, gone.fragment, gone.position) == (True, b"", first)
    assert (kept.ended, kept.fragment) == (False, b"2")
    assert (note.offset, note.withdraws, note.ended) == (3, id_of(first), False)
    assert kept.position == second


async def test_withdrawing_again_does_nothing(inbox: Inbox, log: Log) -> None:
    (place,) = await put(inbox, log, b"1")
    await inbox.withdraw(log, place)

    again = await inbox.withdraw(log, place)

    assert again is not None
    assert not again.done
    assert len(await read_entries(inbox, log)) == 2


async def test_an_entry_that_does_not_exist_is_not_withdrawn(
    inbox: Inbox, log: Log
) -> None:
    (place,) = await put(inbox, log, b"1")
    await inbox.withdraw(log, place)
    note = (await read_entries(inbox, log))[-1].position

    for wrong in (
        place._replace(tag=place.tag ^ 1),
        place._replace(offset=9),
        place._replace(at_us=place.at_us + 1),
        note,
    ):
        assert await inbox.withdraw(log, wrong) is None
    assert len(await read_entries(inbox, log)) == 2


async def test_a_withdrawal_in_another_log_appends_a_control_entry(
    inbox: Inbox, log: Log
) -> None:
    (place,) = await put(inbox, everyone_log(log.app), b"1")

    await inbox.append_withdrawal(log, id_of(place))

    (note,) = await read_entries(inbox, log)
    assert note.withdraws == id_of(place)
    assert await page_fragments(inbox, log) == []
    assert await unread(inbox, log) == 0


# Replacing.


async def test_an_entry_replaces_the_previous_one_of_its_key(
    inbox: Inbox, log: Log
) -> None:
    await put(
        inbox, log, Draft(b"a1", collapse_key="a"), Draft(b"b1", collapse_key="b")
    )
    places = await put(inbox, log, Draft(b"a2", collapse_key="a"), b"c")

    await put(inbox, log, Draft(b"a3", collapse_key="a"))

    assert await page_fragments(inbox, log) == [b"a3", b"c", b"b1"]
    assert await unread(inbox, log) == 3
    entries = await read_entries(inbox, log)
    assert [e.ended for e in entries] == [True, False, True, False, False]
    # A client that has only the first entry gets that id, too.
    assert [e.replaces for e in entries] == [
        "",
        "",
        entries[0].id,
        "",
        id_of(places[0]),
    ]


async def test_within_a_batch_the_last_entry_of_a_key_stays(
    inbox: Inbox, log: Log
) -> None:
    await put(inbox, log, *(Draft(b"%d" % n, collapse_key="a") for n in range(3)))

    assert await page_fragments(inbox, log) == [b"2"]
    assert await unread(inbox, log) == 1


async def test_an_ended_entry_is_not_replaced(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    (first,) = await put(inbox, log, Draft(b"1", collapse_key="a"))
    await inbox.withdraw(log, first)
    await put(inbox, log, Draft(b"2", expires_ms=NOON + 5, collapse_key="a"))
    clock.now_ms += 5  # No operation since.
    await put(inbox, log, Draft(b"3", collapse_key="a"))
    assert not any(e.replaces for e in await read_entries(inbox, log))

    clock.now_ms += DAY_MS + 1
    await put(inbox, log, Draft(b"4", collapse_key="a"))
    entries = await read_entries(inbox, log)
    assert [(e.fragment, e.replaces) for e in entries] == [(b"4", "")]


async def test_an_entry_that_has_left_the_log_is_not_replaced(
    redis: RedisConnection, log: Log
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=2))
    await put(inbox, log, Draft(b"1", collapse_key="a"), b"2", b"3")

    await put(inbox, log, Draft(b"4", collapse_key="a"))

    assert (await read_entries(inbox, log))[-1].replaces == ""


# Expiring.


async def test_an_expired_entry_has_ended_for_every_operation(
    inbox: Inbox, lists: NumberedLists, log: Log, clock: Clock
) -> None:
    await put(inbox, log, Draft(b"1", expires_ms=NOON + 10), b"2")
    await put(inbox, log, Draft(b"3", expires_ms=NOON + 20))
    before = (await inbox.page(log, count=9)).version

    clock.now_ms += 9
    assert (await inbox.page(log, count=9, version=before)).entries is None
    clock.now_ms += 1

    assert (await inbox.page(log, count=9)).version != before
    assert await page_fragments(inbox, log) == [b"3", b"2"]
    listed = await lists.page(log, skip=0, count=9)
    assert [found.entry.fragment for found in listed.entries] == [b"3", b"2"]
    assert (listed.total, await unread(inbox, log)) == (2, 2)
    assert [e.ended for e in await read_entries(inbox, log)] == [True, False, False]
    clock.now_ms += 10
    assert await page_fragments(inbox, log) == [b"2"]


async def test_a_clock_set_back_revives_nothing(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    await put(inbox, log, Draft(b"1", expires_ms=NOON + 10), b"2")
    clock.now_ms += 10
    assert await page_fragments(inbox, log) == [b"2"]

    clock.now_ms -= 10

    assert await page_fragments(inbox, log) == [b"2"]
    assert [e.ended for e in await read_entries(inbox, log)] == [True, False]


async def test_entries_may_expire_in_any_order(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    for ends_ms in (30, 10, 20):
        await put(inbox, log, Draft(b"%d" % ends_ms, expires_ms=NOON + ends_ms))

    for expected in ([b"20", b"30"], [b"30"], []):
        clock.now_ms += 10
        assert await page_fragments(inbox, log) == expected


async def test_an_entry_that_is_expired_when_stored_is_never_shown(
    inbox: Inbox, log: Log
) -> None:
    (place,) = await put(inbox, log, Draft(b"1", expires_ms=NOON))

    assert await page_fragments(inbox, log) == []
    (entry,) = await read_entries(inbox, log)
    assert (entry.position, entry.ended) == (place, True)
    assert await unread(inbox, log) == 0


async def test_entries_expire_in_a_full_store(
    inbox: Inbox, redis: RedisConnection, log: Log, clock: Clock
) -> None:
    await put(inbox, log, Draft(b"1", expires_ms=NOON + 10), b"2")
    clock.now_ms += 10
    await inbox.page(log, count=0)  # Lets the store know the script.
    await put(inbox, log, Draft(b"3", expires_ms=NOON + 20))
    clock.now_ms += 10

    await redis.call("CONFIG", "SET", "maxmemory", 1)
    try:
        assert await page_fragments(inbox, log) == [b"2"]
    finally:
        await redis.call("CONFIG", "SET", "maxmemory", 0)


# Pages and lists among ended entries.


@pytest.fixture
async def sparse(inbox: Inbox, log: Log) -> list[bytes]:
    """Return the entries that have not ended when most have, newest first."""
    kept = []
    for portion in range(30):
        drafts: list[Draft | bytes] = [
            Draft(b"%d" % portion, collapse_key="same") for _ in range(99)
        ]
        await inbox.append(log, [*drafts, b"kept %d" % portion])
        kept.append(b"kept %d" % portion)
    return [kept[-1], b"29", *kept[-2::-1]]


async def test_pages_among_ended_entries_are_full_and_complete(
    inbox: Inbox, log: Log, sparse: list[bytes]
) -> None:
    found: list[bytes] = []
    newest = None
    while True:
        page = await inbox.page(log, newest=newest, count=7)
        assert page.entries
        found += [e.entry.fragment for e in page.entries]
        newest = page.following
        if newest is None:
            break
        assert len(page.entries) == 7

    assert found == sparse


async def test_a_page_passes_over_a_limited_number_of_ended_entries(
    inbox: Inbox, log: Log, sparse: list[bytes]
) -> None:
    for place in reversed((await heard_all(inbox, log))[:-300]):
        if not place.ended:
            await inbox.withdraw(log, place.position)

    first = await inbox.page(log, count=50)
    assert first.following is not None
    assert 0 < len(first.entries or ()) < 50
    rest = await inbox.page(log, newest=first.following, count=50)

    fragments = [e.entry.fragment for e in [*first.entries, *rest.entries]]  # type: ignore[misc]
    assert fragments == sparse[: len(fragments)]
    assert rest.following is None


async def test_a_page_is_empty_only_if_no_entry_is_left(inbox: Inbox, log: Log) -> None:
    await put(inbox, log, b"kept")
    drafts = [Draft(b"x", collapse_key="same")] * 2_100
    (*_, last) = await put(inbox, log, *drafts)
    await inbox.withdraw(log, last)

    assert await page_fragments(inbox, log) == [b"kept"]


async def heard_all(inbox: Inbox, log: Log) -> list[Entry]:
    read = await inbox.read_after(log, Start.EARLIEST, count=10_000)
    return read.history.entries


async def test_a_numbered_list_omits_ended_entries(
    inbox: Inbox, lists: NumberedLists, log: Log, sparse: list[bytes]
) -> None:
    page = await inbox.page(log, count=100)
    assert page.entries is not None
    await inbox.mark_ids(log, [page.entries[3].entry.position])

    listed = await lists.page(log, skip=2, count=3)
    read = await lists.page(log, skip=0, count=9, read=True)
    rest = await lists.page(log, skip=0, count=0, read=False)

    assert listed.total == len(sparse)
    assert [e.entry.fragment for e in listed.entries] == sparse[2:5]
    assert [e.entry.fragment for e in read.entries] == [sparse[3]]
    assert rest.total == len(sparse) - 1


async def test_a_walk_omits_control_entries(
    inbox: Inbox, lists: NumberedLists, log: Log
) -> None:
    first, _ = await put(inbox, log, b"1", b"2")
    await inbox.withdraw(log, first)

    walked = [item async for item in lists.walk(log)]

    assert walked == [(2, b"2"), (1, b"1")]


# Marks.


async def test_marking_does_not_count_ended_entries(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    places = await put(inbox, log, b"1", b"2", Draft(b"3", expires_ms=NOON + 1))
    await inbox.withdraw(log, places[0])
    clock.now_ms += 1

    assert (await inbox.mark_ids(log, [places[0], places[2]])).changed == 0
    assert (await inbox.mark_all(log)).changed == 1


async def test_an_entry_marked_unread_counts_again(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    places = await put(inbox, log, *[b"%d" % n for n in range(20)])
    await inbox.mark_all(log)

    marked = await inbox.mark_unread(log, [places[2], places[17]])

    assert (marked.unread, marked.changed) == (2, 2)
    assert (await inbox.mark_unread(log, [places[2]])).changed == 0
    page = await inbox.page(log, count=100)
    assert page.unread == 2
    not_read = [e.entry.offset for e in page.entries or () if not e.read_at_ms]
    assert not_read == [18, 3]


async def test_an_entry_marked_again_has_the_new_time(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    places = await put(inbox, log, *[b"%d" % n for n in range(20)])
    await inbox.mark_all(log)
    await inbox.mark_unread(log, [places[2], places[9], places[18]])
    clock.now_ms += 1
    await inbox.mark_up_to(log, places[9])
    clock.now_ms += 1
    await put(inbox, log, b"20")
    await inbox.mark_all(log)

    page = await inbox.page(log, count=100)
    times = {e.entry.offset: e.read_at_ms - NOON for e in page.entries or ()}
    assert times == dict.fromkeys(range(1, 21), 0) | {3: 1, 10: 1, 19: 2, 21: 2}


async def test_an_entry_marked_unread_has_no_read_time(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    places = await put(inbox, log, b"1", b"2")
    await inbox.mark_ids(log, places[:1])
    await inbox.mark_unread(log, places[:1])
    clock.now_ms += 1
    await inbox.mark_all(log)

    page = await inbox.page(log, count=2)
    assert [e.read_at_ms - NOON for e in page.entries or ()] == [1, 1]


async def test_an_ended_entry_is_not_marked_unread(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    places = await put(inbox, log, b"1", Draft(b"2", expires_ms=NOON + 1))
    await inbox.mark_all(log)
    await inbox.withdraw(log, places[0])
    clock.now_ms += 1

    assert (await inbox.mark_unread(log, places)).changed == 0
    assert await unread(inbox, log) == 0


async def test_entries_below_the_bitmap_can_be_marked_unread(
    redis: RedisConnection, log: Log, clock: Clock
) -> None:
    inbox = Inbox(redis, LogSettings(clock_us=clock))
    places = [p for _ in range(10) for p in await put(inbox, log, *[b"x"] * 1000)]
    await inbox.mark_all(log)
    wrong = [places[1], places[4_321], places[-1]]

    marked = await inbox.mark_unread(log, wrong)

    assert (marked.unread, marked.changed) == (3, 3)
    done = await inbox.mark_ids(log, wrong)
    assert (done.unread, done.changed) == (0, 3)


# Lifetimes and limits.


async def test_records_of_entries_that_have_left_are_deleted(
    redis: RedisConnection, log: Log
) -> None:
    clock = [NOON]
    inbox = Inbox(redis, LogSettings(entries_max=50, clock_us=lambda: clock[0] * 1_000))
    keys = keys_of().inbox(log)
    for n in range(40):
        clock[0] += 1
        await inbox.append(
            log,
            [
                Draft(b"x", expires_ms=clock[0] + 40, collapse_key=f"{n} {i}")
                for i in range(100)
            ],
        )
        assert await unread(inbox, log) == 50

    for command, key in (("ZCARD", keys.ends), ("HLEN", keys.collapse)):
        assert await redis.call(command, key) <= 1_150


async def test_the_bitmap_of_an_unmarked_log_stays_small(
    redis: RedisConnection, log: Log
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=100))
    for _ in range(120):
        await inbox.append(log, [Draft(b"x", collapse_key="same")] * 100)

    assert await unread(inbox, log) == 1
    assert await redis.call("STRLEN", keys_of().inbox(log).done) <= 8_192 // 8 + 100


async def test_a_bitmap_created_by_an_expiry_expires(
    inbox: Inbox, redis: RedisConnection, log: Log, clock: Clock
) -> None:
    await put(inbox, log, Draft(b"1", expires_ms=NOON + 1))
    clock.now_ms += 1
    assert await unread(inbox, log) == 0

    assert 0 < await redis.call("PTTL", keys_of().inbox(log).done) <= 2 * DAY_MS


async def test_every_key_of_ending_entries_expires(
    inbox: Inbox, redis: RedisConnection, log: Log, clock: Clock
) -> None:
    (first, *_) = await put(
        inbox, log, b"1", Draft(b"2", expires_ms=NOON + 1, collapse_key="a")
    )
    clock.now_ms += 1
    await inbox.mark_ids(log, [], force=True)
    await inbox.mark_all(log)
    await inbox.mark_unread(log, [first])

    for key in keys_of().inbox(log):
        assert 0 < await redis.call("PTTL", key) <= 4 * DAY_MS


async def test_a_log_without_ending_entries_has_no_keys_for_them(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await put(inbox, log, b"1", b"2")
    await inbox.mark_all(log)

    keys = keys_of().inbox(log)
    assert await redis.call("EXISTS", keys.ends, keys.collapse) == 0
    assert b"ended" not in await redis.call("HKEYS", keys.state)


async def test_records_of_a_lost_log_are_deleted(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    await put(inbox, log, Draft(b"1", collapse_key="a"), Draft(b"2", collapse_key="a"))
    await redis.call("DEL", keys_of().inbox(log).state)

    await put(inbox, log, b"new", Draft(b"newer", collapse_key="a"))

    assert await page_fragments(inbox, log) == [b"newer", b"new"]
    assert [e.replaces for e in await read_entries(inbox, log)] == ["", ""]


# Audiences.


async def test_an_audience_state_has_its_ended_entries(
    inbox: Inbox, log: Log, clock: Clock
) -> None:
    audience = everyone_log(log.app)
    places = await put(
        inbox,
        audience,
        *(
            Draft(b"%d" % n, expires_ms=NOON + 1 if n % 3 == 0 else 0)
            for n in range(20)
        ),
    )
    await inbox.withdraw(audience, places[1])
    clock.now_ms += 1

    plain, there = await inbox.audiences([log, audience])

    over = {n + 1 for n in range(20) if n % 3 == 0} | {2, 21}
    assert {offset for offset in range(1, 22) if bit(there, offset)} == over
    assert (there.head.offset, there.floor) == (21, 1)
    assert (plain.head.offset, plain.floor, plain.ended) == (0, 1, b"")


async def test_the_bitmap_of_an_audience_begins_at_its_oldest_entry(
    redis: RedisConnection, log: Log
) -> None:
    inbox = Inbox(redis, LogSettings(entries_max=10))
    for _ in range(5):
        await inbox.append(log, [Draft(b"x", collapse_key="a")] * 5)

    (there,) = await inbox.audiences([log])

    assert (there.floor, there.base, there.head.offset) == (16, 16, 25)
    assert [bit(there, n) for n in range(16, 26)] == [True] * 9 + [False]


def bit(audience: Any, offset: int) -> bool:
    index = offset - audience.base
    if not 0 <= index < 8 * len(audience.ended):
        return False
    return bool(audience.ended[index // 8] >> (7 - index % 8) & 1)


# Announcements.


@pytest.fixture
async def live(
    store_url: str, log: Log, until: Until
) -> AsyncIterator[RecordingHandler]:
    """Return a recorder of the log's announcements."""
    recorder = RecordingHandler()
    pubsub = PubSub(store_url, recorder)
    running = asyncio.create_task(pubsub.run())
    await until(lambda: pubsub.connected)
    await pubsub.subscribe(log)
    yield recorder
    running.cancel()


async def test_an_announcement_has_the_entry_that_is_replaced_or_withdrawn(
    inbox: Inbox, log: Log, live: RecordingHandler, until: Until
) -> None:
    (first,) = await put(inbox, log, Draft(b"1", collapse_key="a"))
    (second,) = await put(inbox, log, Draft(b"2", collapse_key="a"))
    await inbox.withdraw(log, second)
    await put(inbox, log, Draft(b"3", expires_ms=NOON))

    await until(lambda: len(live.entries) == 4)

    announced = [(e.fragment, e.replaces, e.withdraws) for e in live.entries]
    # An expired entry is announced without its fragment, so that readers read the log.
    assert announced == [
        (b"1", "", ""),
        (b"2", id_of(first), ""),
        (b"", "", id_of(second)),
        (b"", "", ""),
    ]


async def test_announced_counts_include_other_logs(
    inbox: Inbox, log: Log, live: RecordingHandler, until: Until
) -> None:
    (place,) = await put(inbox, log, b"1")

    await inbox.mark_ids(log, [place], elsewhere=2)
    await inbox.mark_ids(log, [place], elsewhere=2)
    await inbox.mark_ids(log, [place], elsewhere=1, force=True)
    await inbox.mark_unread(log, [place], elsewhere=1)
    await inbox.mark_all(log, elsewhere=0, force=True)

    await until(lambda: len(live.reads) == 4)
    ids = b'"ids":["%b"]' % id_of(place).encode()
    assert live.reads == [
        (1, ids),
        (2, ids),
        (3, b'"read":false,' + ids),
        (4, b'"all":true'),
    ]


async def test_marks_in_other_logs_are_announced_without_an_own_log(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    marked = await inbox.mark_ids(log, [], elsewhere=3, force=True)

    assert marked == (3, 0, 1)
    assert await redis.call("PTTL", keys_of().inbox(log).state) > 0
    (place,) = await put(inbox, log, b"1")
    assert (place.offset, (await inbox.mark_all(log)).marks) == (1, 2)


# Once.


async def test_a_repeated_append_replaces_nothing(inbox: Inbox, log: Log) -> None:
    once = Once("key", "digest")
    draft = Draft(b"1", collapse_key="a")
    first = await inbox.append(log, [draft], once=once)

    again = await inbox.append(log, [draft], once=once)

    assert again.positions == first.positions
    assert await page_fragments(inbox, log) == [b"1"]

"""Purging: the text of an entry leaves the store, and its position stays."""

from __future__ import annotations

import pytest

from streamer.core.streams.subscription import Start
from streamer.model import Log, Position
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.receipts import ReceiptStore
from streamer.store.logs.settings import LogSettings

from ...clock import NOON, Clock

TEXTS = [b'"title":"one"}', b'"title":"secret"}', b'"title":"three"}']


@pytest.fixture
def inbox(redis: RedisConnection, clock: Clock) -> Inbox:
    return Inbox(redis, LogSettings(clock_us=clock))


async def fill(inbox: Inbox, log: Log, **kind: object) -> list[Position]:
    drafts = [Draft(text, **kind) for text in TEXTS]  # type: ignore[arg-type]
    return list((await inbox.append(log, drafts)).stored)


async def stored(redis: RedisConnection, log: Log) -> bytes:
    items = await redis.call("XRANGE", redis.keys.inbox(log).log, "-", "+")
    return repr(items).encode()


async def test_the_text_is_gone_and_the_entry_is_withdrawn(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    places = await fill(inbox, log)

    assert await inbox.purge(log, places[1])

    assert b"secret" not in await stored(redis, log)
    assert await inbox.fragment_at(log, places[1]) == b""
    page = await inbox.page(log, count=9)
    assert page.entries is not None
    assert [it.entry.position for it in page.entries] == [places[2], places[0]]
    read = await inbox.read_after(log, Start.EARLIEST, count=9)
    offsets = [entry.offset for entry in read.history.entries]
    assert offsets == [1, 2, 3, 4]
    assert read.history.entries[3].withdraws == places[1].id


async def test_reading_goes_on_after_a_purged_position(inbox: Inbox, log: Log) -> None:
    places = await fill(inbox, log)
    await inbox.purge(log, places[1])

    read = await inbox.read_after(log, places[1], count=9)

    assert read.history.gap is None
    assert [entry.offset for entry in read.history.entries] == [3, 4]


async def test_a_purged_position_can_be_acknowledged_and_marked(
    inbox: Inbox, redis: RedisConnection, log: Log, clock: Clock
) -> None:
    places = await fill(inbox, log)
    await inbox.purge(log, places[1])
    receipts = ReceiptStore(redis, LogSettings(clock_us=clock))

    assert await receipts.acknowledge(log, places[1])
    marked = await inbox.mark_up_to(log, places[1])

    assert marked.unread == 1
    receipt = await receipts.of(log, places[1])
    assert receipt is not None
    assert receipt.ended == "withdrawn"


async def test_purging_again_changes_nothing(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    places = await fill(inbox, log)
    await inbox.purge(log, places[1])
    before = await stored(redis, log)

    assert await inbox.purge(log, places[1])

    assert await stored(redis, log) == before


async def test_what_has_ended_before_is_purged_without_another_control_entry(
    inbox: Inbox, redis: RedisConnection, log: Log, clock: Clock
) -> None:
    places = await fill(inbox, log, expires_ms=NOON + 5)
    clock.now_ms += 10

    assert await inbox.purge(log, places[1])

    assert b"secret" not in await stored(redis, log)
    assert await redis.call("XLEN", redis.keys.inbox(log).log) == 3
    receipts = ReceiptStore(redis, LogSettings(clock_us=clock))
    receipt = await receipts.of(log, places[1])
    assert receipt is not None
    assert receipt.ended == "expired"


async def test_the_collapse_key_of_a_purged_entry_is_gone(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    (place,) = (await inbox.append(log, [Draft(b"}", collapse_key="secret")])).stored

    await inbox.purge(log, place)

    assert await redis.call("HGETALL", redis.keys.inbox(log).collapse) == []
    again = (await inbox.append(log, [Draft(b"}", collapse_key="secret")])).stored
    assert again[0].offset == 3


async def test_a_replacement_still_names_what_it_replaced(
    inbox: Inbox, log: Log
) -> None:
    draft = Draft(b"}", collapse_key="k")
    (old,) = (await inbox.append(log, [draft])).stored
    (new,) = (await inbox.append(log, [draft])).stored

    await inbox.purge(log, new)

    read = await inbox.read_after(log, old, count=1)
    assert read.history.entries[0].replaces == old.id


async def test_the_log_keeps_its_lifetime_and_its_last_id(
    inbox: Inbox, redis: RedisConnection, log: Log
) -> None:
    places = await fill(inbox, log)
    await inbox.withdraw(log, places[0])
    key = redis.keys.inbox(log).log
    await redis.call("XADD", key, "9999999999999999-9", "t", "1", "n", "", write=True)
    await redis.call("XDEL", key, "9999999999999999-9", write=True)

    await inbox.purge(log, places[0])

    assert await redis.call("PTTL", key) > 0
    info = await redis.call("XINFO", "STREAM", key)
    named = dict(zip(info[::2], info[1::2], strict=True))
    assert named[b"last-generated-id"] == b"9999999999999999-9"
    assert not await redis.call("EXISTS", redis.keys.rewriting(log.app, log.name))


async def test_another_position_is_unknown(inbox: Inbox, log: Log) -> None:
    places = await fill(inbox, log)

    for wrong in (places[1]._replace(tag=1), places[1]._replace(offset=9)):
        assert not await inbox.purge(log, wrong)
        assert await inbox.fragment_at(log, wrong) is None

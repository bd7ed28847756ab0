from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from streamer.model import Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Draft, Inbox
from streamer.store.logs.receipts import Receipt, ReceiptStore
from streamer.store.logs.settings import DAY_MS, LogSettings

from ...clock import NOON, Clock


@pytest.fixture
def receipts(redis: RedisConnection, clock: Clock) -> ReceiptStore:
    return ReceiptStore(redis, LogSettings(retention_ms=DAY_MS, clock_us=clock))


async def test_a_receipt_shows_each_state_of_a_notification(
    inbox: Inbox, receipts: ReceiptStore, log: Log, clock: Clock
) -> None:
    (place,) = (await inbox.append(log, [Draft(b"1", expires_ms=NOON + 3)])).stored
    assert await receipts.of(log, place) == Receipt(NOON, False, 0, "", NOON + 3)

    assert await receipts.acknowledge(log, place)
    assert not await receipts.acknowledge(log, place)
    clock.now_ms += 1
    await inbox.mark_ids(log, [place])
    assert await receipts.of(log, place) == Receipt(NOON, True, NOON + 1, "", NOON + 3)

    clock.now_ms += 2
    assert await receipts.of(log, place) == Receipt(
        NOON, True, NOON + 1, "expired", NOON + 3
    )


async def test_an_entry_that_ended_unread_has_no_read_time(
    inbox: Inbox, receipts: ReceiptStore, log: Log, clock: Clock
) -> None:
    drafts: list[Draft | bytes] = [
        Draft(b"1", expires_ms=NOON + 1),
        b"2",
        Draft(b"3", collapse_key="a"),
        Draft(b"4", collapse_key="a"),
    ]
    places = (await inbox.append(log, drafts)).stored
    await inbox.withdraw(log, places[1])
    clock.now_ms += 1

    await inbox.mark_all(log)

    found = await receipts.of_many([(log, place) for place in places])
    assert [(r.ended, r.read_at_ms) for r in found if r] == [
        ("expired", 0),
        ("withdrawn", 0),
        ("replaced", 0),
        ("", NOON + 1),
    ]


async def test_an_entry_that_ended_after_being_read_keeps_the_time(
    inbox: Inbox, receipts: ReceiptStore, log: Log, clock: Clock
) -> None:
    drafts: list[Draft | bytes] = [b"1", Draft(b"2", collapse_key="a")]
    places = (await inbox.append(log, drafts)).stored
    await inbox.mark_all(log)
    clock.now_ms += 1

    await inbox.withdraw(log, places[0])
    await inbox.append(log, [Draft(b"3", collapse_key="a")])

    found = await receipts.of_many([(log, place) for place in places])
    assert [(r.ended, r.read_at_ms) for r in found if r] == [
        ("withdrawn", NOON),
        ("replaced", NOON),
    ]


async def test_an_entry_that_was_not_stored_has_no_receipt(
    inbox: Inbox, receipts: ReceiptStore, log: Log
) -> None:
    (place,) = (await inbox.append(log, [b"1"])).stored
    await inbox.append_withdrawal(log, "00000000-0000-7000-8000-000000000001")
    note = (await inbox.page(log, count=0)).head
    wrong = [place._replace(tag=place.tag ^ 1), place._replace(offset=9), note]

    assert await receipts.of_many([(log, p) for p in wrong]) == [None] * 3


async def test_an_unknown_position_acknowledges_nothing(
    inbox: Inbox, receipts: ReceiptStore, log: Log
) -> None:
    first, second = (await inbox.append(log, [b"1", b"2"])).stored

    for wrong in (
        second._replace(tag=second.tag ^ 1),
        second._replace(epoch=second.epoch ^ 1),
        second._replace(offset=3),
    ):
        assert not await receipts.acknowledge(log, wrong)
    assert await receipts.acknowledge(log, first)
    found = await receipts.of_many([(log, first), (log, second)])
    assert [r.acknowledged for r in found if r] == [True, False]


async def test_an_older_position_does_not_undo_an_acknowledgement(
    inbox: Inbox, receipts: ReceiptStore, log: Log
) -> None:
    first, second = (await inbox.append(log, [b"1", b"2"])).stored
    await receipts.acknowledge(log, second)

    assert not await receipts.acknowledge(log, first)

    receipt = await receipts.of(log, second)
    assert receipt is not None
    assert receipt.acknowledged


async def test_a_damaged_log_has_no_receipt_and_hides_none_of_another(
    redis: RedisConnection, inbox: Inbox, receipts: ReceiptStore, log: Log
) -> None:
    other = log._replace(name=Player("other"))
    (place,) = (await inbox.append(log, [b"1"])).stored
    await redis.call("SET", redis.keys.inbox(other).state, "not a hash")

    damaged, found = await receipts.of_each([(other, place), (log, place)])

    assert isinstance(damaged, ResponseError)
    assert isinstance(found, Receipt)


async def test_the_newest_entries_have_what_has_ended(
    inbox: Inbox, receipts: ReceiptStore, log: Log
) -> None:
    places = (await inbox.append(log, [b"1", b"2", b"3"])).stored
    await inbox.withdraw(log, places[1])
    await inbox.mark_ids(log, [places[0]])

    newest = await receipts.newest(log, 10)

    # The control entry of the withdrawal is no notification.
    assert [(it.position, it.fragment) for it, _ in newest] == [
        (places[2], b"3"),
        (places[1], b"2"),
        (places[0], b"1"),
    ]
    assert [it.ended for _, it in newest] == ["", "withdrawn", ""]
    assert [it.read_at_ms > 0 for _, it in newest] == [False, False, True]
    assert len(await receipts.newest(log, 2)) == 1
    assert await receipts.newest(log._replace(name="nobody"), 10) == []

"""Acknowledgements and receipts, by cursors and ids of what has ended."""

from __future__ import annotations

import pytest

from streamer.core.streams.cursor import Cursor, audience_key
from streamer.errors import NotFound
from streamer.model import ZERO, Log, Player, Position
from streamer.service.inboxes.receipts import ReceiptOperations
from streamer.store.logs.receipts import ReceiptStore
from streamer.store.logs.settings import DAY_MS, LogSettings

from .world import FRAGMENT, World, ids


@pytest.fixture
def receipts(world: World) -> ReceiptOperations:
    store = ReceiptStore(world.redis, LogSettings(clock_us=lambda: world.us))
    return ReceiptOperations(store, world.audiences)


async def acknowledged(
    world: World, receipts: ReceiptOperations, *positions: Position
) -> list[bool]:
    """Return whether each of alice's notifications counts as acknowledged."""
    return [
        (await receipts.of_player(world.me, world.log.player, name)).acknowledged
        for name in ids([*positions])
    ]


async def acknowledge(
    world: World, receipts: ReceiptOperations, cursor: Cursor | Position
) -> None:
    if isinstance(cursor, Position):
        cursor = Cursor(cursor._replace(epoch=0))
    await receipts.acknowledge(world.me, world.log.player, cursor)


async def spread(world: World) -> list[Position]:
    """Append to alice's own log, a topic and everyone in turn, twice."""
    await world.join(world.news)
    positions = []
    for log in (world.log, world.news, world.everyone) * 2:
        world.us += 1
        positions += await world.append(log)
    return positions


@pytest.mark.parametrize("ended", [(), (4,), (3, 4, 5), (0, 1, 2, 3, 4, 5)])
async def test_the_cursor_of_a_page_counts_in_every_log(
    world: World, receipts: ReceiptOperations, ended: tuple[int, ...]
) -> None:
    positions = await spread(world)
    for n in ended:
        await world.inbox.withdraw(world.logs[(0, 2, 1)[n % 3]], positions[n])

    await acknowledge(world, receipts, (await world.page()).cursor)

    assert await acknowledged(world, receipts, *positions) == [True] * 6


@pytest.mark.parametrize("has_ended", [False, True])
@pytest.mark.parametrize("number", range(6))
async def test_an_id_counts_in_its_own_log_and_for_what_was_sent_before(
    world: World, receipts: ReceiptOperations, number: int, has_ended: bool
) -> None:
    positions = await spread(world)
    if has_ended:
        await world.inbox.withdraw(world.logs[(0, 2, 1)[number % 3]], positions[number])

    await acknowledge(world, receipts, positions[number])

    expected = [n <= number for n in range(6)]
    assert await acknowledged(world, receipts, *positions) == expected


async def test_an_expired_cursor_counts(
    world: World, receipts: ReceiptOperations
) -> None:
    await world.join(world.news)
    (first,) = await world.append(world.news)
    (last,) = await world.append_expiring(world.news)
    cursor = (await world.page()).cursor
    world.us += 1_000_000

    await acknowledge(world, receipts, cursor)

    assert await acknowledged(world, receipts, first, last) == [True, True]


async def test_an_audience_counts_each_of_its_players_once(
    world: World, receipts: ReceiptOperations
) -> None:
    positions = await spread(world)
    await world.inbox.withdraw(world.news, positions[4])
    for _ in range(2):
        await acknowledge(world, receipts, positions[4])

    backend = world.backend
    for n, count in ((1, 1), (4, 1)):
        (name,) = ids([positions[n]])
        of_audience = await receipts.of_audience(backend, world.news, name)
        assert of_audience.acknowledged == count


async def test_an_id_that_has_left_its_log_counts_for_what_was_sent_before(
    world: World, receipts: ReceiptOperations
) -> None:
    await world.join(world.news)
    world.us += 1
    (news,) = await world.append(world.news)
    world.us += 1
    (own,) = await world.append(world.log)
    world.us += 1
    await world.with_settings(entries_max=2).append(world.log, [FRAGMENT] * 2)

    await acknowledge(world, receipts, own)

    assert await acknowledged(world, receipts, news) == [True]


async def test_ids_of_others_count_for_nothing(
    world: World, receipts: ReceiptOperations
) -> None:
    bob = Log(world.app, Player("bob"))
    positions = await spread(world)
    world.us += 1
    foreign = await world.append(bob, 9) + await world.append(world.guild)
    bobs_page = await world.merged.page(bob, count=5)

    for position in foreign:
        await acknowledge(world, receipts, position)
    await acknowledge(world, receipts, bobs_page.cursor)
    await acknowledge(world, receipts, Cursor(ZERO))

    assert await acknowledged(world, receipts, *positions) == [False] * 6


async def test_what_a_player_has_muted_has_not_arrived(
    world: World, receipts: ReceiptOperations
) -> None:
    positions = await spread(world)
    await world.views.mute(world.log, world.news, muted=True)

    await acknowledge(world, receipts, positions[5])

    assert await acknowledged(world, receipts, positions[4]) == [False]


async def test_a_position_that_an_audience_does_not_know_is_ignored(
    world: World, receipts: ReceiptOperations
) -> None:
    positions = await spread(world)
    wrong = positions[4]._replace(tag=positions[4].tag ^ 1)
    cursor = Cursor(positions[3], {audience_key(world.news): wrong})

    await acknowledge(world, receipts, cursor)

    assert await acknowledged(world, receipts, *positions) == [
        *(True, False, True),
        *(True, False, False),
    ]


async def test_a_notification_from_before_joining_has_no_receipt(
    world: World, receipts: ReceiptOperations
) -> None:
    (before,) = await world.append(world.news)
    await world.join(world.news)

    with pytest.raises(NotFound):
        await acknowledged(world, receipts, before)


async def test_a_cursor_older_than_the_retention_is_no_error(
    world: World, receipts: ReceiptOperations
) -> None:
    positions = await spread(world)
    cursor = (await world.page()).cursor
    world.us += 91 * DAY_MS * 1_000
    later = await world.append(world.log)

    await acknowledge(world, receipts, cursor)
    for position in positions:
        await acknowledge(world, receipts, position)

    assert await acknowledged(world, receipts, *later) == [False]

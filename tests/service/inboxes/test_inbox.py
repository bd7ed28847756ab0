"""Marks by ids and cursors of what has ended, has left its log, or is another's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamer.core.streams.cursor import Cursor, audience_key
from streamer.errors import NotFound
from streamer.model import ZERO, Log, Player, Position
from streamer.store.logs.inbox import Draft
from streamer.store.logs.settings import DAY_MS

from .world import FRAGMENT, World, ids


async def mark_up_to(world: World, cursor: Cursor | Position) -> int:
    """Mark up to a cursor, or the id of a position; return the unread count."""
    if isinstance(cursor, Position):
        cursor = Cursor(cursor._replace(epoch=0))
    marked = await world.inboxes.mark_up_to(world.me, world.log.player, cursor)
    assert marked.unread == await world.unread()
    return marked.unread


async def unread_ids(world: World) -> list[str]:
    page = await world.page(100)
    return [e.entry.id for e in page.entries or () if not e.read_at_ms]


async def spread(world: World, *, same_time: bool = False) -> list[Position]:
    """Append to alice's own log, a topic and everyone in turn, twice."""
    await world.join(world.news)
    world.us += 1
    positions = []
    for log in (world.log, world.news, world.everyone) * 2:
        world.us += not same_time
        positions += await world.append(log)
    return positions


async def end(world: World, log: Log, how: str) -> Position:
    """Append an entry that ends in one of the ways; return its position."""
    expires_ms = world.ms + 1_000 if how == "expired" else 0
    draft = Draft(FRAGMENT, expires_ms=expires_ms, collapse_key="k")
    (position,) = (await world.inbox.append(log, [draft])).stored
    world.us += 1_000_000
    if how == "withdrawn":
        await world.inbox.withdraw(log, position)
    if how == "replaced":
        await world.inbox.append(log, [draft])
    assert isinstance(position, Position)
    return position


@pytest.mark.parametrize("how", ["alive", "expired", "withdrawn", "replaced"])
@pytest.mark.parametrize("number", range(3))
async def test_an_id_marks_the_same_after_its_entry_has_ended(
    world: World, number: int, how: str
) -> None:
    log = (world.log, world.news, world.everyone)[number]
    before = await spread(world)
    world.us += 1
    ended = await end(world, log, how)
    world.us += 1
    after = []
    for other in (world.log, world.news, world.everyone):
        after += await world.append(other)
    newer = 3 + (how == "replaced")

    assert await mark_up_to(world, ended) == newer
    assert not {*ids(before)} & {*await unread_ids(world)}
    assert {*ids(after)} <= {*await unread_ids(world)}


async def test_an_id_marks_what_the_page_shows_below_it(world: World) -> None:
    await spread(world, same_time=True)
    shown = await world.shown()

    entries = (await world.page()).entries or ()
    for n in reversed(range(6)):
        await mark_up_to(world, entries[n].entry.position)
        assert await unread_ids(world) == shown[:n]


@pytest.mark.parametrize("log_number", range(3))
async def test_an_id_that_was_trimmed_marks_what_was_sent_before(
    world: World, log_number: int
) -> None:
    log = (world.log, world.news, world.everyone)[log_number]
    await spread(world)
    world.us += 1
    (trimmed,) = await world.append(log)
    world.us += 1
    await world.with_settings(entries_max=2).append(log, [FRAGMENT] * 2)

    assert await mark_up_to(world, trimmed) == 2


async def test_the_cursor_of_a_page_marks_every_log_after_its_heads_have_ended(
    world: World,
) -> None:
    await spread(world)
    for log in (world.log, world.news, world.everyone):
        await world.append_expiring(log)
    cursor = (await world.page()).cursor
    world.us += 1_000_000
    await world.append(world.news)

    assert await mark_up_to(world, cursor) == 1


async def test_ids_and_cursors_of_others_mark_nothing(world: World) -> None:
    bob = Log(world.app, Player("bob"))
    await world.audiences.views_of(bob)
    await spread(world)
    world.us += 1
    foreign = await world.append(bob, 9) + await world.append(world.guild, 2)
    bobs_cursor = (await world.merged.page(bob, count=5)).cursor

    for position in foreign:
        assert await mark_up_to(world, position) == 6
    assert await mark_up_to(world, bobs_cursor) == 6
    assert await mark_up_to(world, Cursor(ZERO)) == 6


async def test_an_id_of_a_topic_that_was_left_marks_nothing(world: World) -> None:
    positions = await spread(world)
    world.us += 1
    await world.join(world.guild)
    (left,) = await world.append(world.guild)
    await world.views.leave(world.log, world.guild)

    assert await mark_up_to(world, left) == len(positions)


async def test_an_id_ahead_of_the_head_marks_nothing(world: World) -> None:
    positions = await spread(world)
    ahead = positions[3]._replace(offset=99, at_us=world.us + 1)

    assert await mark_up_to(world, ahead) == 6
    assert await mark_up_to(world, Cursor(ahead)) == 6


async def test_an_id_of_a_muted_topic_marks_the_other_logs(world: World) -> None:
    positions = await spread(world)
    await world.views.mute(world.log, world.news, muted=True)

    assert await mark_up_to(world, positions[4]) == 1
    await world.views.mute(world.log, world.news, muted=False)
    assert await world.unread() == 3


async def test_an_unknown_position_of_an_audience_marks_nothing_there(
    world: World,
) -> None:
    positions = await spread(world)
    wrong = positions[4]._replace(tag=positions[4].tag ^ 1)
    cursor = Cursor(positions[3], {audience_key(world.news): wrong})

    assert await mark_up_to(world, cursor) == 3


async def test_everything_has_left_the_logs(world: World) -> None:
    positions = await spread(world)
    cursor = (await world.page()).cursor
    world.us += 91 * DAY_MS * 1_000
    await world.append(world.log)

    for old in positions:
        assert await mark_up_to(world, old) == 1
    assert await mark_up_to(world, cursor) == 1


@pytest.mark.parametrize("how", ["expired", "withdrawn", "replaced"])
@pytest.mark.parametrize("number", range(3))
async def test_one_ended_notification_is_found_nowhere_and_marked_by_nothing(
    world: World, number: int, how: str
) -> None:
    await spread(world)
    log = (world.log, world.news, world.everyone)[number]
    world.us += 1
    ended = await end(world, log, how)
    unread, player = await world.unread(), world.log.player
    name: Sequence[str] = ids([ended])

    with pytest.raises(NotFound):
        await world.inboxes.get(world.me, player, name[0])
    assert (await world.inboxes.mark_ids(world.me, player, name)).unread == unread
    assert (await world.inboxes.mark_unread(world.me, player, name)).unread == unread
    # As deleting it again would be, deleting it is no error.
    await world.inboxes.delete(world.me, player, name[0])
    assert await world.unread() == unread

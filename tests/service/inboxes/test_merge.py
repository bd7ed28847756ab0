"""An inbox merged from several logs, compared with a list merged by hand."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.cursor import Cursor, audience_key
from streamer.core.streams.subscription import Start
from streamer.errors import NotFound, StoreUnavailable
from streamer.model import (
    ZERO,
    Gap,
    Log,
    Player,
    Position,
)
from streamer.service.inboxes import merge
from streamer.service.inboxes.merge import EntriesAfter, MergedPage
from streamer.service.inboxes.page_merge import PORTION_MIN
from streamer.store.client.commands import pack_all
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs import shared_logs
from streamer.store.logs.inbox import Draft
from streamer.store.logs.page_reads import EARLY_ITEMS
from streamer.store.logs.settings import DAY_MS

from .world import FRAGMENT, World, ids


async def test_a_page_is_newest_first_across_logs(world: World) -> None:
    await world.join(world.news)
    sent_ids = []
    for log in (world.log, world.news, world.everyone, world.guild, world.news):
        world.us += 1
        places = await world.append(log)
        sent_ids += ids(places) if log != world.guild else []

    page = await world.page()

    assert [found.entry.id for found in page.entries or ()] == sent_ids[::-1]
    assert page.unread == 4 == await world.unread()
    assert page.following is None


async def test_entries_a_microsecond_apart_are_in_the_order_of_their_times(
    world: World,
) -> None:
    await world.join(world.news)
    # A later entry has the lower offset, which decided within a millisecond.
    await world.inbox.append(world.log, [FRAGMENT] * 3)
    world.us += 91 * DAY_MS * 1_000
    sent_ids = []
    for log in (world.log, world.news, world.everyone, world.log, world.news):
        sent_ids += ids(await world.append(log))
        world.us += 1

    assert await world.shown() == sent_ids[::-1]
    after = await world.merged.entries_after(world.log, Start.EARLIEST, count=9)
    assert [entry.id for entry in after.entries] == sent_ids
    for n, name in enumerate(sent_ids):
        cursor = Cursor.parse(name)
        assert cursor is not None
        after = await world.merged.entries_after(world.log, cursor, count=9)
        assert [entry.id for entry in after.entries] == sent_ids[n + 1 :]


async def test_entries_of_one_microsecond_are_in_the_order_of_offset_and_tag(
    world: World,
) -> None:
    await world.join(world.news)
    places = []
    for log in (world.everyone, world.log, world.news):
        places += await world.append(log, 2)

    expected = ids(sorted(places, key=lambda place: (place.offset, place.tag)))
    assert await world.shown() == expected[::-1]
    assert sorted(expected) == expected


async def test_entries_that_the_store_has_timed_are_in_the_order_of_storing(
    world: World,
) -> None:
    await world.join(world.news)
    await world.inbox.append(world.log, [FRAGMENT] * 3)
    world.us = 0  # The store's own clock.
    logs = [world.log, world.news, world.everyone] * 30

    # In one packet, so that many share a millisecond.
    stored = await world.inbox.append_many([(log, [FRAGMENT]) for log in logs])

    places = []
    for appended in stored:
        assert not isinstance(appended, Exception)
        places += appended.stored
    assert len({place.at_us // 1_000 for place in places}) < len(places)
    assert await world.shown(len(places)) == ids(places)[::-1]


@pytest.mark.parametrize("late_us", [0, 1])
async def test_an_inbox_has_an_entry_for_exactly_the_retention(
    world: World, late_us: int
) -> None:
    await world.join(world.news)
    places = [
        (await world.append(log))[0] for log in (world.log, world.news, world.everyone)
    ]
    world.us += 90 * DAY_MS * 1_000 + late_us
    kept = 3 if late_us == 0 else 0

    assert await world.unread() == kept
    page = await world.page()
    assert (len(page.entries or ()), page.unread) == (kept, kept)
    found = [await world.merged.get(world.log, place) for place in places]
    assert len(found) - found.count(None) == kept
    after = await world.merged.entries_after(world.log, Start.EARLIEST, count=9)
    assert len(after.entries) == kept
    marked = await world.inboxes.mark_all(world.me, world.log.player)
    assert (marked.changed, marked.unread) == (kept // 3, 0)  # One is in its own log.


async def test_the_first_entry_of_an_audience_is_after_a_concurrent_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, first, own = world.inbox.page, list[Position](), list[Position]()
    await world.page()  # From here on the player belongs to everyone.

    async def read_later(*args: Any, **options: Any) -> Any:
        if not first:
            first.extend(await world.append(world.everyone))
            world.us += 1
            own.extend(await world.append(world.log))
        return await read(*args, **options)

    # As if an entry had been appended between the script and the command after it.
    monkeypatch.setattr(world.inbox, "parse_page_beside", lambda *args, **options: None)
    monkeypatch.setattr(world.inbox, "page", read_later)
    page = await world.page()
    monkeypatch.undo()
    after = await world.merged.entries_after(world.log, page.cursor, count=20)

    assert [found.entry.id for found in page.entries or ()] == ids(own)
    assert [entry.id for entry in after.entries] == ids(first)


async def test_a_cursor_has_positions_of_empty_logs(world: World) -> None:
    page = await world.page()
    after = await world.merged.entries_after(world.log, page.cursor, count=20)

    silent = {audience_key(world.everyone): ZERO}
    assert page.cursor.audiences == after.cursor.audiences == silent


async def test_entries_before_joining_are_not_shown(world: World) -> None:
    await world.append(world.news, 3)
    await world.append(world.everyone, 2)
    world.us += 1
    assert await world.shown() == []
    await world.join(world.news)
    world.us += 1

    expected = ids(await world.append(world.news)) + ids(
        await world.append(world.everyone)
    )

    assert sorted(await world.shown()) == sorted(expected)
    assert (await world.page(1)).unread == 2


async def test_everyones_entries_after_a_players_first_notification_are_shown(
    world: World,
) -> None:
    # It never read its inbox; the entry in between is in it nevertheless.
    await world.append(world.everyone)
    world.us += 1
    own = ids(await world.append(world.log))
    world.us += 1
    since = ids(await world.append(world.everyone))

    assert await world.shown() == since + own


async def test_a_muted_audience_is_neither_shown_nor_counted(world: World) -> None:
    await world.join(world.news)
    (place,) = await world.append(world.news)
    await world.views.mute(world.log, world.news, muted=True)

    page = await world.page()
    assert page.entries == []
    assert page.unread == 0 == await world.unread()
    assert await world.merged.get(world.log, place) is None
    after = await world.merged.entries_after(world.log, Start.EARLIEST, count=5)
    assert after.entries == []

    await world.views.mute(world.log, world.news, muted=False)
    assert await world.shown() == ids([place])


async def test_an_entry_is_found_by_id_in_any_log(world: World) -> None:
    await world.join(world.news)
    for log in (world.log, world.everyone, world.news):
        places = await world.append(log, 3)
        for place in places:
            found = await world.merged.get(world.log, place._replace(epoch=0))
            assert found is not None
            # Epoch and tag are unique to its log.
            assert found.entry.position == place
        other = places[1]._replace(tag=places[1].tag ^ 1)
        assert await world.merged.get(world.log, other) is None
    (foreign,) = await world.append(world.guild)
    assert await world.merged.get(world.log, foreign) is None
    assert await world.merged.get(world.log, foreign._replace(tag=0)) is None


async def test_a_version_changes_exactly_with_the_page(world: World) -> None:
    world_page = await world.page()
    version, known = world_page.version, world_page

    async def changes(change: Any, *, expected: bool) -> None:
        nonlocal version, known
        await change
        page = await world.page(version=version)
        assert (page.entries is not None) == expected, change
        assert (page.version != version) == expected
        if not expected:
            assert (await world.page())[1:] == known[1:]
        version, known = page.version, await world.page()

    def mark(name: str) -> Any:
        return world.inboxes.mark_ids(world.me, world.log.player, [name])

    await changes(world.page(), expected=False)
    await changes(world.append(world.guild), expected=False)
    await changes(world.append(world.log), expected=True)
    await changes(world.append(world.everyone), expected=True)
    await changes(world.join(world.news), expected=True)
    await changes(world.join(world.news), expected=False)
    (news,) = await world.append(world.news)
    await changes(world.page(), expected=True)
    (name,) = ids([news])
    await changes(mark(name), expected=True)
    await changes(mark(name), expected=False)
    await changes(
        world.inboxes.mark_unread(world.me, world.log.player, [name]), expected=True
    )
    await changes(world.inbox.withdraw(world.news, news), expected=True)
    (other,) = await world.append(world.everyone)
    await changes(world.page(), expected=True)
    name = ids([other])[0]
    delete = world.inboxes.delete
    await changes(delete(world.me, world.log.player, name), expected=True)
    await changes(delete(world.me, world.log.player, name), expected=False)
    mute = world.views.mute
    await changes(mute(world.log, world.news, muted=True), expected=True)
    await changes(world.append(world.news), expected=False)
    await changes(mute(world.log, world.news, muted=False), expected=True)
    await changes(world.inboxes.mark_all(world.me, world.log.player), expected=True)
    await changes(world.inboxes.mark_all(world.me, world.log.player), expected=False)
    world.us += 91 * DAY_MS * 1_000
    await changes(world.page(), expected=True)
    assert await world.shown() == []


async def test_marks_of_an_interrupted_request_change_the_version(
    world: World,
) -> None:
    # The views were marked, then the store was unavailable: the caller retries.
    (place,) = await world.append(world.everyone)
    world.us += 1
    await world.audiences.views.join(world.log, world.everyone, ZERO)
    version = (await world.page()).version
    views = world.audiences.views
    (found,) = await views.find([(world.everyone, [place])])
    await views.change(
        world.log,
        world.everyone,
        "ids",
        found.live,
        epoch=found.epoch,
        floor=found.floor,
    )

    await world.inboxes.mark_ids(world.me, world.log.player, ids([place]))

    page = await world.page(version=version)
    assert page.entries is not None
    assert page.entries[0].read_at_ms


async def test_a_page_read_during_a_deletion_does_not_stay_current(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = await world.append(world.everyone)
    views = world.audiences.views
    change, during = views.change, list[MergedPage]()

    async def change_later(*args: Any, **kind: Any) -> list[int]:
        # The streams are notified, and the view still has the notification.
        during.append(await world.page())
        return await change(*args, **kind)

    monkeypatch.setattr(views, "change", change_later)
    await world.delete(place)

    (page,) = during
    assert page.unread == 1
    page = await world.page(version=page.version)
    assert page.entries == []
    assert page.unread == 0


@pytest.mark.parametrize("is_shared", [False, True])
async def test_an_entry_purged_while_a_page_is_read_is_not_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    log = world.everyone if is_shared else world.log
    places = await world.append(log, EARLY_ITEMS + 3)
    await world.views.join(world.log, world.everyone, ZERO)
    reads, redis = world.merged._page_reads, world.redis
    read = reads.read_shared if is_shared else redis.call

    async def read_later(*args: Any) -> Any:
        # The state of the log has been read, and these items have not.
        monkeypatch.undo()
        assert await world.inbox.purge(log, places[1])
        return await read(*args)

    if is_shared:
        monkeypatch.setattr(reads, "read_shared", read_later)
    else:
        monkeypatch.setattr(redis, "call", read_later)
    page = await world.page(100)

    kept = [place for place in places if place is not places[1]]
    assert [it.entry.id for it in page.entries or ()] == ids(kept)[::-1]
    assert all(it.entry.fragment == FRAGMENT for it in page.entries or ())
    again = await world.page(version=page.version)
    assert (page if again.entries is None else again).unread == len(kept)


async def test_a_page_needs_no_primary_but_those_of_its_logs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.us = 0  # The store's own clock.
    await world.join(world.news)
    await world.append(world.news)
    expected = await world.page()
    run_many, asked = world.redis.run_many, list[bool]()

    async def run_without_time(calls: Any, *, after: Any = (), **kind: Any) -> Any:
        replies = await run_many(calls, after=after, **kind)
        for i, command in enumerate(after, len(calls)):
            if command == pack_all([("TIME",)]):
                replies[i] = StoreUnavailable("the primary is away")
                asked.append(True)
        return replies

    monkeypatch.setattr(world.redis, "run_many", run_without_time)

    assert await world.page() == expected
    assert asked


async def test_the_version_changes_when_a_player_is_forgotten(world: World) -> None:
    await world.page()  # The player joins everyone.
    await world.append(world.everyone)
    world.us += 1
    page = await world.page()
    assert page.entries

    await world.redis.call("DEL", keys_of().views(world.log), write=True)
    await world.redis.call("DEL", *keys_of().inbox(world.log), write=True)

    assert (await world.page(version=page.version)).entries == []


async def test_read_times_are_the_times_of_marks(world: World) -> None:
    await world.join(world.news)
    first, second = ids(await world.append(world.news, 2))
    own, other = ids(await world.append(world.log, 2))
    world.us += 10_000
    await world.inboxes.mark_ids(world.me, world.log.player, [first, own])
    marked_ms = world.ms
    world.us += 10_000
    await world.inboxes.mark_all(world.me, world.log.player)

    page = await world.page()

    times = {found.entry.id: found.read_at_ms for found in page.entries or ()}
    assert times == {
        first: marked_ms,
        own: marked_ms,
        second: world.ms,
        other: world.ms,
    }
    assert page.unread == 0


async def test_a_lost_audience_log_starts_unread(
    world: World,
) -> None:
    await world.join(world.news)
    await world.append(world.news, 3)
    await world.inboxes.mark_all(world.me, world.log.player)
    world.us += 1
    await world.redis.call("DEL", *keys_of().inbox(world.news), write=True)

    fresh = ids(await world.append(world.news, 2))

    page = await world.page()
    assert [f.entry.id for f in page.entries or ()] == fresh[::-1]
    assert [f.read_at_ms for f in page.entries or ()] == [0, 0]
    assert page.unread == 2


async def test_marking_up_to_a_cursor_applies_to_each_log(world: World) -> None:
    await world.join(world.news)
    sent_ids = []
    for log in (world.news, world.log, world.everyone, world.log, world.news):
        world.us += 1
        sent_ids += ids(await world.append(log))

    def parsed(text: str) -> Cursor:
        cursor = Cursor.parse(text)
        assert cursor is not None
        return cursor

    mark_up_to = world.inboxes.mark_up_to
    for n in (0, 1, 2):  # Ids of an audience's entry and of the player's own.
        marked = await mark_up_to(world.me, world.log.player, parsed(sent_ids[n]))
        assert marked.unread == 4 - n
    page = await world.page()
    await world.append(world.news)
    marked = await mark_up_to(world.me, world.log.player, page.cursor)
    assert marked.unread == 1


async def test_entries_after_an_id_come_from_all_logs(world: World) -> None:
    await world.join(world.news)
    sent_ids = []
    for n in range(12):
        world.us += 1
        sent_ids += ids(await world.append(world.logs[n % 3]))

    for n, text in enumerate(sent_ids):
        cursor = Cursor.parse(text)
        assert cursor is not None
        after = await world.merged.entries_after(world.log, cursor, count=20)
        assert after.gap is None
        assert [entry.id for entry in after.entries] == sent_ids[n + 1 :]


async def test_a_position_of_a_lost_log_marks_nothing(
    world: World,
) -> None:
    await world.join(world.news)
    await world.append(world.news, 3)
    cursor = (await world.page()).cursor
    await world.redis.call("DEL", *keys_of().inbox(world.news), write=True)
    await world.append(world.news, 3)

    marked = await world.inboxes.mark_up_to(world.me, world.log.player, cursor)

    assert marked.unread == 3


async def test_deleting_affects_one_player_only(world: World) -> None:
    other = Log(world.app, Player("bob"))
    await world.audiences.views_of(other)
    await world.audiences.views_of(world.log)
    world.us += 1
    (name,) = ids(await world.append(world.everyone))

    await world.inboxes.delete(world.me, world.log.player, name)

    assert await world.shown() == []
    assert (await world.page()).unread == 0
    page = await world.merged.page(other, count=5)
    assert [found.entry.id for found in page.entries or ()] == [name]
    # Deleting twice is no error; deleting an unknown entry is.
    await world.inboxes.delete(world.me, world.log.player, name)
    (foreign,) = ids(await world.append(world.guild))
    with pytest.raises(NotFound):
        await world.inboxes.delete(world.me, world.log.player, foreign)


async def test_entries_before_joining_cannot_be_deleted(
    world: World,
) -> None:
    (name,) = ids(await world.append(world.news))
    await world.join(world.news)
    await world.append(world.news)

    with pytest.raises(NotFound):
        await world.inboxes.delete(world.me, world.log.player, name)


async def test_a_page_is_bounded_by_the_cursor_in_each_log(
    world: World,
) -> None:
    await world.join(world.news)
    for log in (world.log, world.news, world.everyone):
        await world.append(log)
    cursor = (await world.page()).cursor
    # All in the same microsecond, so that only positions differ.
    fresh = []
    for log in (world.log, world.news, world.everyone):
        fresh += ids(await world.append(log))

    page = await world.page(oldest=cursor)

    assert sorted(f.entry.id for f in page.entries or ()) == sorted(fresh)


@pytest.mark.parametrize("is_own", [True, False])
async def test_an_entry_appended_while_a_page_reads_on_is_after_its_cursor(
    world: World, monkeypatch: pytest.MonkeyPatch, is_own: bool
) -> None:
    await world.join(world.news)
    (kept,) = ids(await world.append(world.news))
    await world.delete(*await world.append(world.news, PORTION_MIN))
    page_reads, fresh = world.merged._page_reads, list[str]()
    read, rounds = page_reads.read_shared, list[int]()

    async def append_before_second_round(*args: Any) -> Any:
        rounds.append(len(rounds))
        if len(rounds) == 2:
            fresh.extend(ids(await world.append(world.log if is_own else world.news)))
        return await read(*args)

    # The first round finds deleted entries only, so that the page reads on.
    monkeypatch.setattr(page_reads, "read_shared", append_before_second_round)
    page = await world.page(1)
    monkeypatch.undo()

    assert len(fresh) == 1
    assert [found.entry.id for found in page.entries or ()] == [kept]
    after = await world.merged.entries_after(world.log, page.cursor, count=20)
    assert [entry.id for entry in after.entries] == fresh
    assert page.unread == 1
    assert (await world.page(1, version=page.version)).entries is not None


async def test_no_entry_is_shown_before_newer_ones_that_were_not_read_yet(
    world: World,
) -> None:
    # A page of one reads two of each log. Those of the audiences are deleted, so that
    # what is older in them is not known yet: some of it is newer than the player's own.
    await world.join(world.news)
    (oldest,) = ids(await world.append(world.everyone))
    world.us += 1
    (own,) = ids(await world.append(world.log))
    world.us += 1
    (newest,) = ids(await world.append(world.news))
    world.us += 1
    for log in (world.everyone, world.news):
        await world.delete(*await world.append(log, 2))

    walked, page = list[str](), await world.page(1)
    while True:
        walked += [found.entry.id for found in page.entries or ()]
        if page.following is None:
            break
        page = await world.page(1, newest=page.following)

    assert walked == [newest, own, oldest]


async def test_no_entry_follows_before_older_ones_that_were_not_read_yet(
    world: World,
) -> None:
    await world.join(world.news)
    (withdrawn,) = await world.append(world.news)
    world.us += 1
    first = ids(await world.append(world.news))
    world.us += 1
    second = ids(await world.append(world.everyone))
    world.us += 1
    third = ids(await world.append(world.everyone))
    await world.inbox.withdraw(world.news, withdrawn)

    walked, start, more = list[str](), Cursor(ZERO), True
    while more:
        after = await world.merged.entries_after(world.log, start, count=1)
        walked += [entry.id for entry in after.entries]
        start, more = after.cursor, after.more

    assert walked == first + second + third


@pytest.mark.parametrize("audience_speaks", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_nothing_follows_a_page_that_ends_where_the_caller_is(
    world: World, audience_speaks: bool, which: int
) -> None:
    if audience_speaks:
        await world.append(world.everyone)
        world.us += 1
    log = world.logs[which]
    oldest, *between, newest = await world.append(log, 4)

    # Reads `newest` as well as the two, so that its log goes on at `oldest`.
    page = await world.page(
        2, newest=newest, newest_included=False, oldest=Cursor(oldest)
    )

    assert [found.entry.position for found in page.entries or ()] == between[::-1]
    assert page.following is None


async def test_nothing_follows_a_page_that_ends_where_the_player_joined(
    world: World,
) -> None:
    await world.append(world.news, 4)
    await world.join(world.news)
    world.us += 1
    joined = ids(await world.append(world.news, 2))

    page = await world.page(2)

    assert [found.entry.id for found in page.entries or ()] == joined[::-1]
    assert page.following is None


async def test_everyones_log_is_bounded_by_its_own_position(
    world: World,
) -> None:
    # The cursor of a client that received a newer entry of its own log live, but not
    # yet an older one of everyone's log.
    await world.append(world.everyone)
    before = (await world.page()).cursor
    world.us += 1
    missed = ids(await world.append(world.everyone))
    world.us += 1
    (own,) = await world.append(world.log)

    page = await world.page(oldest=before._replace(own=own))

    assert [found.entry.id for found in page.entries or ()] == missed


async def test_a_lost_audience_log_is_a_gap(world: World) -> None:
    await world.join(world.news)
    await world.append(world.news)
    cursor = (await world.page()).cursor
    await world.redis.call("DEL", *keys_of().inbox(world.news), write=True)
    await world.append(world.news)

    after = await world.merged.entries_after(world.log, cursor, count=5)

    assert after.gap is Gap.EPOCH
    assert after.entries == []


async def test_ended_entries_do_not_let_newer_ones_of_another_log_go_first(
    world: World,
) -> None:
    await world.join(world.news)
    over = await world.append(world.news, 8)
    world.us += 1
    (alive,) = ids(await world.append(world.news))
    world.us += 1
    (newest,) = ids(await world.append(world.log))
    for place in over:
        await world.inbox.withdraw(world.news, place)

    first = await world.merged.entries_after(world.log, Start.EARLIEST, count=3)
    then = await world.merged.entries_after(world.log, first.cursor, count=3)

    assert [entry.id for entry in first.entries] == [alive]
    assert first.more
    assert [entry.id for entry in then.entries] == [newest]


async def test_walking_forward_while_others_append_loses_and_repeats_nothing(
    world: World,
) -> None:
    for topic in (world.news, world.guild):
        await world.join(topic)
    sent_ids: list[str] = []
    writing = True

    async def write() -> None:
        nonlocal writing
        for n in range(40):
            world.us += n % 3 == 0
            sent_ids.extend(ids(await world.append(world.logs[n % 4], 1 + n % 3)))
        writing = False

    got: list[str] = []
    place: Cursor | Start = Start.EARLIEST
    writer = asyncio.create_task(write())
    while True:
        last = not writing
        after: EntriesAfter = await world.merged.entries_after(
            world.log, place, count=5
        )
        assert after.gap is None
        got += [entry.id for entry in after.entries]
        # As a client sends it.
        parsed = Cursor.parse(after.cursor.text)
        assert parsed is not None
        place = parsed
        if last and not after.more:
            break
    await writer

    assert len(got) == len(set(got))
    assert sorted(got) == sorted(sent_ids)


steps = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("wait"), st.integers(1, 3), st.just(0)),
    st.tuples(st.just("withdraw"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("delete"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("mark"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("expire"), st.integers(0, 3), st.integers(1, 4)),
    st.tuples(st.just("join"), st.integers(2, 3), st.just(0)),
    st.tuples(st.just("leave"), st.integers(2, 3), st.just(0)),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(todo=st.lists(steps, min_size=4, max_size=25), size=st.integers(1, 5))
def test_pages_and_walks_are_those_of_one_merged_list(
    session_store: str, todo: list[tuple[str, int, int]], size: int
) -> None:
    asyncio.run(compare(session_store, todo, size))


async def compare(url: str, todo: list[tuple[str, int, int]], size: int) -> None:
    redis = RedisConnection(url)
    world = World(redis)
    model = ByHand(world)
    try:
        await world.audiences.views_of(world.log)
        for name, one, two in todo:
            await getattr(model, name)(one, two)
        await model.agree(size)
    finally:
        await redis.close()


class ByHand:
    """A model of the inbox: all entries in one list, and their state."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: list[tuple[Log, Position]] = []
        self.ends: dict[Position, int] = {}
        self.gone: set[Position] = set()
        self.deleted: set[Position] = set()
        self.read: set[Position] = set()
        self.since: dict[Log, int] = {world.log: 0, world.everyone: 0}
        """The number of entries in a log when it was joined."""

    async def append(self, which: int, count: int) -> None:
        log = self.world.logs[which]
        self.sent += [(log, place) for place in await self.world.append(log, count)]

    async def expire(self, which: int, after_ms: int) -> None:
        log, ends_ms = self.world.logs[which], self.world.ms + after_ms
        draft = Draft(FRAGMENT, expires_ms=ends_ms)
        (place,) = (await self.world.inbox.append(log, [draft])).stored
        self.sent.append((log, place))
        self.ends[place] = ends_ms

    async def wait(self, ms: int, _: int) -> None:
        self.world.us += 1_000 * ms

    def _at(self, number: int) -> tuple[Log, Position] | None:
        return self.sent[number % len(self.sent)] if self.sent else None

    async def withdraw(self, number: int, _: int) -> None:
        if (one := self._at(number)) is not None:
            log, place = one
            await self.world.inbox.withdraw(log, place)
            if self.ends.get(place, self.world.ms + 1) > self.world.ms:
                self.gone.add(place)

    async def delete(self, number: int, _: int) -> None:
        one = self._at(number)
        if one is None or one[0] == self.world.log or one not in self.shown():
            return
        (name,) = ids([one[1]])
        await self.world.inboxes.delete(self.world.me, self.world.log.player, name)
        self.deleted.add(one[1])

    async def mark(self, number: int, _: int) -> None:
        one = self._at(number)
        if one is not None:
            names = ids([one[1]])
            player = self.world.log.player
            marked = await self.world.inboxes.mark_ids(self.world.me, player, names)
            if one in self.shown():
                self.read.add(one[1])
            assert marked.unread == self.unread()

    async def join(self, which: int, _: int) -> None:
        log = self.world.logs[which]
        if log not in self.since:
            self.since[log] = sum(of == log for of, _ in self.sent)
        await self.world.join(log)

    async def leave(self, which: int, _: int) -> None:
        log = self.world.logs[which]
        assert log.topic is not None
        await self.world.audiences.leave(self.world.log, log.topic)
        if self.since.pop(log, None) is not None:
            of_it = {place for of, place in self.sent if of == log}
            self.read -= of_it
            self.deleted -= of_it

    def shown(self) -> list[tuple[Log, Position]]:
        """Return the entries of the player, newest first."""
        shown = []
        counts: dict[Log, int] = {}
        for log, place in self.sent:
            counts[log] = counts.get(log, 0) + 1
            late = self.ends.get(place, self.world.ms + 1) <= self.world.ms
            over = place in self.gone or place in self.deleted or late
            if log in self.since and counts[log] > self.since[log] and not over:
                shown.append((log, place))
        return sorted(shown, key=lambda one: one[1].order, reverse=True)

    def unread(self) -> int:
        return sum(place not in self.read for _, place in self.shown())

    async def agree(self, size: int) -> None:
        expected = [place for _, place in self.shown()]
        newest: Position | None = None
        got: list[Position] = []
        while True:
            page = await self.world.page(size, newest=newest)
            assert page.unread == self.unread()
            entries = page.entries or []
            assert len(entries) <= size
            assert page.following is None or entries
            for found in entries:
                place = found.entry.position
                assert bool(found.read_at_ms) == (place in self.read)
                got.append(place)
            newest = page.following
            if newest is None:
                break
        assert got == expected
        await self._agree_behind_each(size, expected)
        await self._agree_forward(size, expected)

    async def _agree_behind_each(self, size: int, expected: list[Position]) -> None:
        for place in expected[:3]:
            page = await self.world.page(size, newest=place, newest_included=False)
            older = [one for one in expected if one.order < place.order]
            got = [found.entry.position for found in page.entries or ()]
            assert got == older[: len(got)]
            assert bool(got) == bool(older)
            assert len(got) <= size
            page = await self.world.page(100, oldest=Cursor(place._replace(epoch=0)))
            got = [found.entry.position for found in page.entries or ()]
            assert got == [one for one in expected if one.order > place.order]

    async def _agree_forward(self, size: int, expected: list[Position]) -> None:
        got: list[Position] = []
        place: Cursor | Start = Start.EARLIEST
        while True:
            after = await self.world.merged.entries_after(
                self.world.log, place, count=size
            )
            assert after.gap is None
            assert len(after.entries) <= size
            got += [entry.position for entry in after.entries]
            place = after.cursor
            if not after.more:
                break
        assert got == expected[::-1]


@pytest.mark.parametrize("how", ["expired", "withdrawn", "left"])
@pytest.mark.parametrize("number", range(3))
async def test_entries_after_an_id_whose_entry_is_gone(
    world: World, number: int, how: str
) -> None:
    # The player's own log is the shortest, so that an audience's offset is beyond it.
    await world.join(world.news)
    await world.append(world.news, 5)
    await world.append(world.everyone, 7)
    log = (world.log, world.news, world.everyone)[number]
    world.us += 1
    (gone,) = await world.append_expiring(log)
    world.us += 1
    after = []
    for other in (world.log, world.news, world.everyone):
        after += ids(await world.append(other))
    if how == "expired":
        world.us += 1_000_000
    elif how == "withdrawn":
        await world.inbox.withdraw(log, gone)
    else:
        await world.redis.call(
            "XTRIM", keys_of().inbox(log).log, "MINID", f"{gone.at_us + 1}", write=True
        )

    cursor = Cursor(gone._replace(epoch=0))
    read = await world.merged.entries_after(world.log, cursor, count=50)

    assert read.gap is None
    assert [entry.id for entry in read.entries] == after


async def test_entries_after_an_id_of_a_muted_topic(world: World) -> None:
    await world.join(world.news)
    world.us += 1
    (muted,) = (await world.append(world.news, 5))[-1:]
    world.us += 1
    after = ids(await world.append(world.log))
    await world.views.mute(world.log, world.news, muted=True)

    cursor = Cursor(muted._replace(epoch=0))
    read = await world.merged.entries_after(world.log, cursor, count=50)

    assert read.gap is None
    assert [entry.id for entry in read.entries] == after


async def test_the_next_of_a_page_is_a_cursor_whatever_log_it_ends_in(
    world: World,
) -> None:
    await world.join(world.news)
    for log in (world.log, world.news):
        world.us += 1
        await world.append(log)
    last = ((await world.page()).entries or [])[0]
    world.us += 1
    after = ids(await world.append(world.log))

    read = await world.merged.entries_after(
        world.log, Cursor(last.entry.position), count=50
    )

    assert read.gap is None
    assert [entry.id for entry in read.entries] == after


@pytest.mark.parametrize("which", ["everyone", "news"])
@pytest.mark.parametrize("part", ["state", "log"])
async def test_a_page_is_shown_without_a_damaged_audience_and_says_so(
    world: World, which: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise a damaged stream may show a moment later.
    monkeypatch.setattr(shared_logs, "LENGTH_S", 0)
    await world.join(world.news)
    damaged = world.everyone if which == "everyone" else world.news
    shown = []
    for log in (world.log, world.everyone, world.news, world.guild):
        world.us += 1
        places = await world.append(log)
        if log not in (damaged, world.guild):
            shown += ids(places)
    before = await world.page()
    key = getattr(keys_of().inbox(damaged), part)
    await world.redis.call("RENAME", key, f"{key}:kept", write=True)
    await world.redis.call("SET", key, "neither a hash nor a stream", write=True)

    page = await world.page(version=before.version)

    assert [found.entry.id for found in page.entries or ()] == shown[::-1]
    assert page.unreadable == [damaged]
    assert page.unread == 2
    assert audience_key(damaged) not in page.cursor.audiences
    assert (await world.page(version=page.version)).unreadable == [damaged]
    if part == "state":
        assert await world.unread() == 2
        marked = await world.inboxes.mark_all(world.me, world.log.player)
        assert marked.unread == 0

    await world.redis.call("RENAME", f"{key}:kept", key, write=True)
    repaired = await world.page(version=page.version)
    assert len(repaired.entries or ()) == 3
    assert repaired.unreadable == []


async def test_a_bitmap_that_is_none_leaves_its_audience_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise it shows a moment later.
    monkeypatch.setattr(shared_logs, "LENGTH_S", 0)
    await world.join(world.news)
    (own,) = await world.append(world.log)
    ended, _ = await world.append(world.news, 2)
    await world.inbox.withdraw(world.news, ended)
    await world.page()
    done = keys_of().inbox(world.news).done
    await world.redis.call("DEL", done, write=True)
    await world.redis.call("RPUSH", done, "not a string", write=True)

    page = await world.page()

    assert [found.entry.id for found in page.entries or ()] == ids([own])
    assert page.unreadable == [world.news]
    assert page.unread == 1
    # It may be repaired at any time, and the versions of the logs would not tell.
    assert (await world.page(version=page.version)).entries is not None


@pytest.mark.parametrize("count", [1, 2])
async def test_a_page_below_the_head_of_an_audience_has_no_entry_twice(
    world: World, count: int
) -> None:
    await world.page()
    await world.join(world.news)
    names = []
    logs = [world.log, world.news, world.log, world.everyone, world.news, world.log]
    for log in logs:
        world.us += 1_000
        names += ids(await world.append(log))
    head = Cursor.parse(names[3])
    assert head is not None

    page = await world.page(count, newest=head.own, newest_included=False)

    assert [it.entry.id for it in page.entries or ()] == names[2::-1][:count]


async def test_a_page_and_what_follows_its_cursor_are_everything_that_was_sent(
    world: World,
) -> None:
    await world.join(world.news)
    logs = [world.log, world.news, world.everyone]
    sent: list[str] = []

    async def publish(count: int) -> None:
        for n in range(count):
            world.us += n % 2
            sent.extend(ids(await world.append(logs[n % 3])))

    for _ in range(8):
        publishing = asyncio.create_task(publish(9))
        page = await world.page(100)
        await publishing
        after = await world.merged.entries_after(world.log, page.cursor, count=100)
        shown = [found.entry.id for found in page.entries or ()]
        assert len(shown) == len(set(shown))
        assert {*shown, *(entry.id for entry in after.entries)} == {*sent}


# Reads of many logs, of which only the beginnings are read at first.


async def walk_up(world: World, count: int, up_to: Cursor | None = None) -> list[str]:
    """Return the ids of all entries, oldest first, read `count` at a time."""
    found, start = list[str](), Cursor(ZERO)
    read_from: Cursor | Start = Start.EARLIEST
    while True:
        after = await world.merged.entries_after(
            world.log, read_from, count=count, up_to=up_to
        )
        assert after.gap is None
        assert len(after.entries) <= count
        found += [entry.id for entry in after.entries]
        if not after.more:
            return found
        assert after.cursor != start
        read_from = start = after.cursor


@pytest.mark.parametrize("seed", range(4))
async def test_reading_beginnings_first_finds_the_same_in_the_same_order(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    await world.join(world.news)
    await world.join(world.guild)
    places: list[Position] = []
    for _ in range(20):
        world.us += chance.randrange(2)
        log = chance.choice(world.logs)
        places += await world.append(log, chance.choice([1, 1, 2, 9]))
    ended = [it for it in places if chance.random() < 0.3]
    await world.delete(*ended)
    up_to = (await world.page(1)).cursor
    await world.append(chance.choice(world.logs), 3)
    for count in (1, 4, 15):
        monkeypatch.setattr(merge, "MANY_LOGS", 10**9)
        whole = [await walk_up(world, count), await walk_up(world, count, up_to)]

        monkeypatch.setattr(merge, "MANY_LOGS", 1)
        monkeypatch.setattr(merge, "BEGINNING_MIN", chance.choice([1, 2]))

        in_parts = [await walk_up(world, count), await walk_up(world, count, up_to)]
        assert in_parts == whole
        assert set(whole[1]) == set(ids(places)) - set(ids(ended))


async def test_a_log_that_loses_entries_between_two_reads_leaves_no_hole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "MANY_LOGS", 1)
    monkeypatch.setattr(merge, "BEGINNING_MIN", 1)
    places = await world.append(world.log, 10)
    world.us += 1
    await world.append(world.everyone, 2)
    read_many = world.inbox.read_many
    reads = 0

    async def losing(requests: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            # What is kept after the beginning that was read does not follow it.
            await world.with_settings(entries_max=4).append(world.log, [FRAGMENT])
        return await read_many(requests)

    monkeypatch.setattr(world.inbox, "read_many", losing)

    after = await world.merged.entries_after(world.log, Start.EARLIEST, count=6)

    assert reads == 2
    assert after.more
    assert [entry.id for entry in after.entries] == ids(places)[: len(after.entries)]
    assert 0 < len(after.entries) < 6

"""Entering, moving, cancelling and firing on a real server, with a clock of our own."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import pytest

from streamer.core.schedule import AHEAD_MAX_MS, LATE_AFTER_MS, Schedule, State
from streamer.core.subscription import Start
from streamer.model import App, Log, Player, iso_time
from streamer.store.devices import Devices
from streamer.store.inbox import DAY_MS, Draft, Inbox
from streamer.store.keys import (
    BUCKETS,
    bucket_of,
    cards_key,
    due_apps_key,
    due_key,
    named_key,
    recipients_key,
    schedule_key,
    sends_key,
)
from streamer.store.leases import Leases
from streamer.store.link import Link
from streamer.store.mutes import Mutes
from streamer.store.timetable import Due, Timetable, new_schedule_id, parse_due

from ..clock import NOON, Clock

T = TypeVar("T")

APP = App("app")
FRAGMENT = b'"body":"b"}'
_numbers = itertools.count(1)


@pytest.fixture
def timetable(link: Link, clock: Clock) -> Timetable:
    return Timetable(link, clock_ms=clock)


@pytest.fixture
def inbox(link: Link, clock: Clock) -> Inbox:
    return Inbox(link, clock_ms=clock)


@pytest.fixture
async def other_link(store_url: str) -> AsyncIterator[Link]:
    link = Link(store_url)
    yield link
    await link.close()


def reminder(player: str, due_ms: int = NOON, **fields: Any) -> Schedule:
    """Return a schedule for one player."""
    made = Schedule(
        APP,
        new_schedule_id(bucket_of(APP, player)),
        State.PENDING,
        due_ms,
        0,
        FRAGMENT,
        player=Player(player),
        total=1,
    )
    return made._replace(**fields)


def due_of(schedule: Schedule) -> Due:
    due = parse_due(schedule.app, schedule.id)
    assert due is not None
    return due


async def campaign(
    timetable: Timetable, *, name: str = "c", slots_max: int = 0, **fields: Any
) -> tuple[Schedule, bool]:
    """Enter a schedule for a campaign; return it, and whether there was a slot."""
    made = Schedule(
        APP,
        new_schedule_id(bucket_of(APP, name)),
        State.PENDING,
        NOON,
        0,
        FRAGMENT,
        campaign=name,
        buckets=tuple(range(BUCKETS)),
    )._replace(**fields)
    entered = await timetable.add(made, slots_max=slots_max)
    return made, not entered.full


async def audience(timetable: Timetable, *players: str, **fields: Any) -> Schedule:
    """Enter a schedule for players."""
    made = Schedule(
        APP, new_schedule_id(7), State.PENDING, NOON, 0, FRAGMENT, total=len(players)
    )
    names = [Player(player) for player in players]
    buckets = await timetable.enlist(due_of(made), names)
    made = made._replace(buckets=tuple(buckets), **fields)
    assert (await timetable.add(made)).added
    return made


async def received(inbox: Inbox, player: str) -> list[bytes]:
    read = await inbox.read_after(
        Log(APP, Player(player)), Start.EARLIEST, count=10_000
    )
    return [entry.fragment for entry in read.history.entries]


async def state_of(timetable: Timetable, schedule: Schedule) -> State:
    found = await timetable.get(schedule.app, schedule.id)
    assert found is not None
    return found.state


# Ids.


@pytest.mark.parametrize("bucket", [0, 1, 127, 128, 255])
def test_an_id_names_its_bucket(bucket: int) -> None:
    schedule_id = new_schedule_id(bucket)

    assert parse_due(APP, schedule_id) == Due(bucket, APP, schedule_id)


def test_an_id_comes_again_for_its_seed_only() -> None:
    assert new_schedule_id(3, seed="s") == new_schedule_id(3, seed="s")
    assert new_schedule_id(3, seed="s") != new_schedule_id(3, seed="t")
    assert new_schedule_id(3) != new_schedule_id(3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scheduled",
        "2973a23f8d318f5581d8dbe0c1429933",
        "2973A23F-8D31-8F55-81D8-DBE0C1429933",
        "{2973a23f-8d31-8f55-81d8-dbe0c1429933}",
        "2973a23f-8d31-4f55-81d8-dbe0c1429933",
        "01a1fb68-f083-7000-8000-050c55f1a9e4",
    ],
)
def test_other_text_is_no_id(text: str) -> None:
    assert parse_due(APP, text) is None


# Entering.


async def test_what_is_entered_is_what_is_read(
    timetable: Timetable, clock: Clock
) -> None:
    entered = reminder("p", NOON + 5, source="native", label="l", spread_ms=7)
    entered = entered._replace(
        type="t", expires_ms=NOON + 9, ttl_ms=4, collapse_key="k", to_latest=True
    )

    assert (await timetable.add(entered)).created_ms == NOON
    clock.now_ms += 1_000

    assert await timetable.get(APP, entered.id) == entered._replace(created_ms=NOON)


async def test_entering_again_changes_nothing(timetable: Timetable) -> None:
    first = reminder("p", NOON + 5)
    await timetable.add(first)

    again = await timetable.add(first._replace(due_ms=NOON + 9, fragment=b"x"))

    assert not again.added
    assert not again.full
    found = await timetable.get(APP, first.id)
    assert found is not None
    assert (found.due_ms, found.fragment) == (NOON + 5, FRAGMENT)


async def test_another_app_does_not_see_it(timetable: Timetable) -> None:
    entered = reminder("p")
    await timetable.add(entered)

    assert await timetable.get(App("other"), entered.id) is None


async def test_a_page_goes_by_the_time_of_making(
    timetable: Timetable, clock: Clock
) -> None:
    made = []
    for i in range(7):
        clock.now_ms = NOON + i // 3
        made.append(reminder(f"p{i}", NOON + 100 - i))
        await timetable.add(made[-1])

    seen: list[Schedule] = []
    while page := await timetable.page(
        APP, after=(seen[-1].created_ms, seen[-1].id) if seen else (0, ""), limit=2
    ):
        assert len(page) <= 2
        seen += page

    assert {s.id for s in seen} == {s.id for s in made}
    assert len(seen) == 7
    assert [(s.created_ms, s.id) for s in seen] == sorted(
        (s.created_ms, s.id) for s in seen
    )


async def test_players_and_labels_with_colons_have_lists_of_their_own() -> None:
    names = {
        named_key(Log(APP, Player(player)), label)
        for player, label in (("a:b", "c"), ("a", "b:c"), ("a", "c"), ("c", "a:b"))
    }

    assert len(names) == 4


# Firing for one player.


async def test_nothing_fires_before_its_time(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    entered = reminder("p", NOON + 1)
    await timetable.add(entered)

    assert await timetable.fire([entered]) == 0
    clock.now_ms += 1
    assert await timetable.fire([entered]) == 1

    assert await received(inbox, "p") == [FRAGMENT]


async def test_firing_again_does_nothing(timetable: Timetable, inbox: Inbox) -> None:
    entered = reminder("p")
    await timetable.add(entered)

    assert [await timetable.fire([entered]) for _ in range(3)] == [1, 0, 0]

    assert await received(inbox, "p") == [FRAGMENT]
    found = await timetable.get(APP, entered.id)
    assert found is not None
    assert (found.state, found.delivered, found.settled_ms) == (State.SENT, 1, NOON)


async def test_a_due_list_has_what_is_due_in_due_order(
    timetable: Timetable, clock: Clock
) -> None:
    made = [reminder("p", NOON + i) for i in (3, 1, 2, 5)]
    for schedule in made:
        await timetable.add(schedule)

    dues = await timetable.due(NOON + 3, limit=10)

    assert dues == [due_of(made[i]) for i in (1, 2, 0)]
    assert await timetable.due(NOON + 3, limit=1) == dues[:1]


async def test_what_went_out_late_says_when_it_was_due(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    for i, late_ms in enumerate((LATE_AFTER_MS, LATE_AFTER_MS + 1)):
        entered = reminder(f"p{i}", NOON)
        clock.now_ms = NOON
        await timetable.add(entered)
        clock.now_ms = NOON + late_ms
        await timetable.fire([entered])

    assert await received(inbox, "p0") == [FRAGMENT]
    due_at = f'"due_at":"{iso_time(NOON)}"'.encode()
    assert await received(inbox, "p1") == [due_at + b"," + FRAGMENT]


async def test_a_schedule_without_a_record_leaves_the_timetable(
    timetable: Timetable, link: Link, inbox: Inbox
) -> None:
    entered = reminder("p")
    await timetable.add(entered)
    due = due_of(entered)
    await link.call("DEL", schedule_key(due.bucket, APP, due.id))

    await timetable.fire([entered])

    assert await timetable.due(NOON, limit=9) == []
    assert await received(inbox, "p") == []


async def test_a_sent_schedule_can_be_asked_for_for_90_days(
    timetable: Timetable, link: Link
) -> None:
    entered = reminder("p", NOON)
    await timetable.add(entered)
    due = due_of(entered)
    record = schedule_key(due.bucket, APP, due.id)
    assert await link.call("PTTL", record) == -1

    await timetable.fire([entered])

    assert 0 <= 90 * DAY_MS - await link.call("PTTL", record) < 60_000


# Cancelling and moving.


async def test_what_is_cancelled_never_fires(
    timetable: Timetable, inbox: Inbox, clock: Clock
) -> None:
    entered = reminder("p", NOON + 1)
    await timetable.add(entered)

    assert await timetable.cancel(due_of(entered)) == (State.CANCELLED, True)
    clock.now_ms += DAY_MS

    assert await timetable.fire([entered]) == 0
    assert await received(inbox, "p") == []
    assert await timetable.due(clock.now_ms, limit=9) == []


async def test_cancelling_again_says_so(timetable: Timetable) -> None:
    entered = reminder("p")
    await timetable.add(entered)
    await timetable.cancel(due_of(entered))

    assert await timetable.cancel(due_of(entered)) == (State.CANCELLED, False)


async def test_what_has_gone_out_is_not_cancelled(timetable: Timetable) -> None:
    entered = reminder("p")
    await timetable.add(entered)
    await timetable.fire([entered])

    assert await timetable.cancel(due_of(entered)) == (State.SENT, False)


async def test_what_is_not_there_is_not_cancelled(timetable: Timetable) -> None:
    assert await timetable.cancel(due_of(reminder("p"))) == (None, False)


@pytest.mark.parametrize("by_ms", [-1, 60_000])
async def test_what_is_moved_fires_at_its_other_time(
    timetable: Timetable, inbox: Inbox, clock: Clock, by_ms: int
) -> None:
    entered = reminder("p", NOON + 100)
    await timetable.add(entered)

    moved = await timetable.cancel(due_of(entered), due_ms=NOON + 100 + by_ms)

    assert moved == (State.PENDING, True)
    clock.now_ms = NOON + 100 + by_ms - 1
    assert await timetable.fire([entered]) == 0
    clock.now_ms += 1
    assert await timetable.fire([entered]) == 1
    assert await received(inbox, "p") == [FRAGMENT]


async def test_a_cancellation_and_a_send_at_once_agree_on_what_happened(
    timetable: Timetable, other_link: Link, inbox: Inbox, clock: Clock
) -> None:
    """E2: cancelled or delivered, one of them, and the answer says which."""
    firing = Timetable(other_link, clock_ms=clock)
    made = [reminder(f"p{i}") for i in range(300)]
    await asyncio.gather(*(timetable.add(schedule) for schedule in made))

    await asyncio.gather(firing.fire([]), other_link.call("PING"))
    few = asyncio.Semaphore(8)

    async def after_a_while(step: Awaitable[T]) -> T:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        return await step

    async def race(schedule: Schedule) -> tuple[bool, bool]:
        async with few:
            (_, cancelled), fired = await asyncio.gather(
                after_a_while(timetable.cancel(due_of(schedule))),
                after_a_while(firing.fire([schedule])),
            )
        return cancelled, bool(fired)

    outcomes = await asyncio.gather(*map(race, made))

    assert {True, False} == {cancelled for cancelled, _ in outcomes}
    for schedule, (cancelled, fired) in zip(made, outcomes, strict=True):
        assert cancelled is not fired
        assert schedule.player is not None
        assert len(await received(inbox, schedule.player)) == int(fired)
        state = State.SENT if fired else State.CANCELLED
        assert await state_of(timetable, schedule) is state


# Audiences.


async def serve(timetable: Timetable, schedule: Schedule, *, limit: int = 100) -> None:
    if schedule.campaign:
        await timetable.enlist_cards(schedule, schedule.buckets)
    for bucket in schedule.buckets:
        while True:
            players, count = await timetable.waiting(schedule, bucket, limit=limit)
            if count is not None:
                await timetable.finish(schedule, {bucket: count})
                break
            await timetable.deliver(schedule, bucket, players)


async def test_an_audience_gets_it_once_each(
    timetable: Timetable, inbox: Inbox
) -> None:
    names = [f"p{i}" for i in range(50)]
    entered = await audience(timetable, *names)

    await timetable.begin([due_of(entered)])
    assert await timetable.sending() == [due_of(entered)]
    await serve(timetable, entered, limit=3)

    assert [await received(inbox, name) for name in names] == [[FRAGMENT]] * 50
    found = await timetable.get(APP, entered.id)
    assert found is not None
    assert (found.state, found.delivered, found.total) == (State.SENT, 50, 50)
    assert await timetable.sending() == []


# What a schedule says of itself, for one player and for an audience.


async def send_to(
    timetable: Timetable, players: Sequence[str], *, alone: bool, **fields: Any
) -> None:
    """Send to each player: all at once as an audience, or each alone."""
    if alone:
        each = [reminder(player, **fields) for player in players]
        for schedule in each:
            await timetable.add(schedule)
        await timetable.fire(each)
    else:
        schedule = await audience(timetable, *players, **fields)
        await timetable.begin([due_of(schedule)])
        await serve(timetable, schedule)


@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_sent_replaces_and_expires_as_what_is_published(
    timetable: Timetable, inbox: Inbox, clock: Clock, alone: bool
) -> None:
    log = Log(APP, Player("p"))
    await inbox.append(log, [Draft(b"1", collapse_key="k")])

    await send_to(timetable, ["p"], alone=alone, collapse_key="k", expires_ms=NOON + 5)

    page = await inbox.page(log, count=9)
    assert [e.entry.fragment for e in page.entries or ()] == [FRAGMENT]
    clock.now_ms += 5
    assert (await inbox.page(log, count=9)).entries == []


@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_sent_does_not_reach_who_has_muted_it(
    timetable: Timetable, inbox: Inbox, link: Link, alone: bool
) -> None:
    await Mutes(link).mute(Log(APP, Player("p")), "news")

    await send_to(timetable, ["p", "q"], alone=alone, type="news")
    await send_to(timetable, ["p", "q"], alone=alone, type="mail")

    assert await received(inbox, "p") == [FRAGMENT]
    assert await received(inbox, "q") == [FRAGMENT] * 2


@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_sent_to_the_device_used_last_names_it(
    timetable: Timetable, inbox: Inbox, link: Link, alone: bool
) -> None:
    log = Log(APP, Player("p"))
    leases = Leases(link, most=5)
    await leases.take(log, "1")
    await Devices(link, leases.node).used(log, "1", "phone")

    await send_to(timetable, ["p", "q"], alone=alone, to_latest=True)
    await inbox.append(log, [Draft(b"2", device="latest"), b"3"])

    read = await inbox.read_after(log, Start.EARLIEST, count=9)
    assert [e.device for e in read.history.entries] == ["phone", "phone", ""]
    read = await inbox.read_after(Log(APP, Player("q")), Start.EARLIEST, count=9)
    assert [e.device for e in read.history.entries] == [""]


async def test_what_is_sent_and_muted_is_sent_to_nobody(
    timetable: Timetable, link: Link
) -> None:
    await Mutes(link).mute(Log(APP, Player("p")), "news")
    entered = reminder("p", type="news")
    await timetable.add(entered)

    assert await timetable.fire([entered]) == 1

    found = await timetable.get(APP, entered.id)
    assert found is not None
    assert (found.state, found.delivered, found.total) == (State.SENT, 0, 1)


async def test_recipients_are_written_down_once(timetable: Timetable) -> None:
    due = Due(1, APP, new_schedule_id(1))

    first = await timetable.enlist(due, [Player("a"), Player("b")])
    again = await timetable.enlist(due, [Player("a"), Player("b")])

    assert first == again
    schedule = Schedule(APP, due.id, State.PENDING, NOON, 0, FRAGMENT)
    listed = []
    for bucket in first:
        listed += (await timetable.waiting(schedule, bucket, limit=9))[0]
    assert sorted(listed) == ["a", "b"]


async def test_only_the_next_recipients_are_served(
    timetable: Timetable, inbox: Inbox
) -> None:
    entered = await audience(timetable, "p")
    await timetable.begin([due_of(entered)])
    (bucket,) = entered.buckets

    for wrong in ([Player("q")], [Player("p"), Player("q")]):
        assert await timetable.deliver(entered, bucket, wrong) == 0
    assert await timetable.deliver(entered, bucket, [Player("p")]) == 1
    # A scheduler that was stopped in between, and goes on.
    assert await timetable.deliver(entered, bucket, [Player("p")]) == 0

    assert await received(inbox, "p") == [FRAGMENT]


async def test_an_audience_that_has_begun_is_not_cancelled(
    timetable: Timetable,
) -> None:
    entered = await audience(timetable, "p")
    await timetable.begin([due_of(entered)])

    assert await timetable.cancel(due_of(entered)) == (State.SENDING, False)


async def test_an_audience_that_was_cancelled_does_not_begin(
    timetable: Timetable,
) -> None:
    entered = await audience(timetable, "p")
    await timetable.cancel(due_of(entered))

    await timetable.begin([due_of(entered)])

    assert await timetable.sending() == []
    assert await state_of(timetable, entered) is State.CANCELLED


async def test_a_bucket_is_counted_once(timetable: Timetable) -> None:
    entered = await audience(timetable, *(f"p{i}" for i in range(20)))
    await timetable.begin([due_of(entered)])
    bucket = entered.buckets[0]

    for _ in range(2):
        await timetable.finish(entered, {bucket: 5})

    found = await timetable.get(APP, entered.id)
    assert found is not None
    assert found.delivered == 5
    assert await timetable.served(entered) == {bucket}


async def test_recipients_wait_as_long_as_a_schedule_and_an_outage(
    timetable: Timetable, link: Link
) -> None:
    entered = await audience(timetable, "p")
    (bucket,) = entered.buckets
    listed = recipients_key(bucket, APP, entered.id)
    await link.call("PEXPIRE", listed, 1_000)

    await timetable.keep_recipients(entered)
    assert await link.call("PTTL", listed) > AHEAD_MAX_MS + 80 * DAY_MS

    await timetable.begin([due_of(entered)])
    await serve(timetable, entered)
    assert 0 < await link.call("PTTL", listed) <= DAY_MS


# Campaigns.


async def test_active_cards_are_taken_when_it_is_sent(
    timetable: Timetable, link: Link, inbox: Inbox
) -> None:
    entered, _ = await campaign(timetable)
    statuses = ("active", "draft", "revoked", "expired", "removed", "moved")
    for status in statuses:
        key = cards_key(bucket_of(APP, status), APP, "c")
        await link.call("HSET", key, f"card-{status}", f"{status} 1 {status}")
    # A second card of the same player; a name with a blank; a card that is called so.
    key = cards_key(bucket_of(APP, "active"), APP, "c")
    await link.call("HSET", key, "twin", "active 3 active")
    key = cards_key(bucket_of(APP, "active 1 x"), APP, "c")
    await link.call("HSET", key, "odd", "active 1 active 1 x")

    await timetable.begin([due_of(entered)])
    await timetable.enlist_cards(entered, entered.buckets)
    await serve(timetable, entered)

    assert [await received(inbox, s) for s in statuses] == [[FRAGMENT], *[[]] * 5]
    assert await received(inbox, "active 1 x") == [FRAGMENT]
    found = await timetable.get(APP, entered.id)
    assert found is not None
    assert (found.state, found.delivered) == (State.SENT, 2)


async def test_a_campaign_has_so_many_slots(timetable: Timetable) -> None:
    for _ in range(3):
        _, has_slot = await campaign(timetable, slots_max=3)
        assert has_slot

    fourth, has_slot = await campaign(timetable, slots_max=3)

    assert not has_slot
    assert await timetable.get(APP, fourth.id) is None
    _, other_has_slot = await campaign(timetable, name="d", slots_max=3)
    assert other_has_slot


async def test_a_slot_is_given_back_by_cancelling_and_by_nothing_else(
    timetable: Timetable,
) -> None:
    first, _ = await campaign(timetable, slots_max=1)
    assert not (await campaign(timetable, slots_max=1))[1]

    await timetable.cancel(due_of(first), campaign="c")
    second, has_slot = await campaign(timetable, slots_max=1)
    assert has_slot
    # Cancelled before: there is no second slot to give.
    await timetable.cancel(due_of(first), campaign="c")
    assert not (await campaign(timetable, slots_max=1))[1]

    await timetable.begin([due_of(second)])
    await timetable.cancel(due_of(second), campaign="c")
    await serve(timetable, second)
    await timetable.cancel(due_of(second), campaign="c")
    assert not (await campaign(timetable, slots_max=1))[1]


async def test_of_many_who_race_for_the_last_slot_one_gets_it(
    timetable: Timetable, other_link: Link, clock: Clock
) -> None:
    other = Timetable(other_link, clock_ms=clock)
    for _ in range(2):
        await campaign(timetable, slots_max=3)

    raced = await asyncio.gather(
        *(campaign((timetable, other)[i % 2], slots_max=3) for i in range(30))
    )

    assert sum(has_slot for _, has_slot in raced) == 1
    listed = await timetable.listed(
        sends_key(APP, "c"), bucket=bucket_of(APP, "c"), app=APP
    )
    assert len(listed) == 3


async def test_due_keys_of_all_buckets_are_looked_into(
    timetable: Timetable, link: Link
) -> None:
    made = [reminder(f"p{next(_numbers)}") for _ in range(600)]
    await asyncio.gather(*(timetable.add(schedule) for schedule in made))

    dues = await timetable.due(NOON, limit=600 * BUCKETS)

    assert {due.id for due in dues} == {schedule.id for schedule in made}
    assert {due.bucket for due in dues} > set(range(0, BUCKETS, 64))
    assert await link.call("ZCARD", due_key(dues[0].bucket, APP)) > 0


async def test_apps_of_a_bucket_have_the_same_share_of_what_is_due(
    timetable: Timetable,
) -> None:
    made = [reminder("p", NOON - i) for i in range(6)]
    # An id says its bucket, whatever the player.
    other = reminder("p", app=App("other"))
    await timetable.add_many([*made, other])

    dues = await timetable.due(NOON, limit=4)

    assert dues == [due_of(made[5]), due_of(made[4]), due_of(other)]


async def test_an_app_is_looked_for_when_the_first_of_its_schedules_is_due(
    timetable: Timetable, link: Link
) -> None:
    first, second = reminder("p", NOON + 10), reminder("p", NOON + 20)
    await timetable.add_many([second, first])
    apps = due_apps_key(due_of(first).bucket)
    assert await link.call("ZSCORE", apps, APP) == str(NOON + 10).encode()

    await timetable.cancel(due_of(first), due_ms=NOON + 30)
    assert await link.call("ZSCORE", apps, APP) == str(NOON + 20).encode()
    await timetable.cancel(due_of(second))
    await timetable.cancel(due_of(first))

    assert await link.call("EXISTS", apps) == 0


async def test_an_app_with_nothing_left_to_fire_is_not_looked_for(
    timetable: Timetable, link: Link
) -> None:
    entered = reminder("p")
    await timetable.add(entered)

    await timetable.fire([entered])

    assert await link.call("EXISTS", due_apps_key(due_of(entered).bucket)) == 0

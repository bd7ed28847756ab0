"""Token buckets, counted players and schedule slots, in the store."""

from __future__ import annotations

import asyncio

import pytest

from streamer.model import App, Log, Player
from streamer.store.access.quotas import PERIOD_MS, RETRY_WHEN_FULL_MS, QuotaUsage
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings

APP, OTHER = App("app"), App("other")
NOON_MS = 1_800_000_000_000


class Clock:
    """The time of the store and of the node."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS

    def us(self) -> int:
        return self.now_ms * 1_000

    def s(self) -> float:
        return self.now_ms / 1_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def used(redis: RedisConnection, clock: Clock) -> QuotaUsage:
    return QuotaUsage(redis, LogSettings(clock_us=clock.us), clock_s=clock.s)


async def borrow(
    used: QuotaUsage,
    needed: int,
    requested: int = 0,
    *,
    app: App = APP,
    per_s: float = 10,
) -> int:
    """Borrow from a bucket with a capacity of 10."""
    lent, _ = await used.borrow(
        app, "b", per_s=per_s, burst=10, needed=needed, requested=requested or needed
    )
    return lent


# Buckets.


async def test_a_bucket_lends_what_it_has_and_fills_evenly(
    used: QuotaUsage, clock: Clock
) -> None:
    assert [await borrow(used, 4) for _ in range(3)] == [4, 4, 0]

    clock.now_ms += 199
    assert await borrow(used, 4) == 0
    clock.now_ms += 1
    assert await borrow(used, 4) == 4

    clock.now_ms += 3_600_000
    assert [await borrow(used, 10) for _ in range(2)] == [10, 0]


async def test_a_full_bucket_has_no_key(
    used: QuotaUsage, redis: RedisConnection
) -> None:
    await borrow(used, 4)

    assert 0 < await redis.call("PTTL", keys_of().quota(APP, "b")) <= 401


async def test_a_need_above_the_capacity_leaves_a_debt(
    used: QuotaUsage, clock: Clock
) -> None:
    assert await borrow(used, 30) == 30

    clock.now_ms += 2_099
    assert await borrow(used, 1) == 0
    clock.now_ms += 1
    assert await borrow(used, 1) == 1


async def test_a_reserve_is_at_most_an_eighth_of_the_permits(
    used: QuotaUsage,
) -> None:
    lent, left = await used.borrow(
        APP, "big", per_s=1, burst=800, needed=1, requested=500
    )

    assert (lent, left) == (100, 700)


async def test_a_clock_set_back_does_not_stop_the_filling(
    used: QuotaUsage, clock: Clock
) -> None:
    await borrow(used, 10)
    clock.now_ms -= 3_600_000
    assert await borrow(used, 1) == 0

    clock.now_ms += 100

    assert await borrow(used, 1) == 1


async def test_fractions_of_permits_are_kept(used: QuotaUsage, clock: Clock) -> None:
    await borrow(used, 10, per_s=0.01)
    for _ in range(99):
        clock.now_ms += 1_000
        assert await borrow(used, 1, per_s=0.01) == 0

    clock.now_ms += 1_001

    assert await borrow(used, 1, per_s=0.01) == 1


async def test_each_app_has_its_own_buckets(used: QuotaUsage) -> None:
    await borrow(used, 10)

    assert await borrow(used, 10, app=OTHER) == 10


async def test_concurrent_nodes_borrow_no_more_than_there_is(used: QuotaUsage) -> None:
    lent = await asyncio.gather(*(borrow(used, 1) for _ in range(50)))

    assert sum(lent) == 10


# Players.


async def test_players_are_counted_once(used: QuotaUsage) -> None:
    assert await used.note_players(APP, [Player("a"), Player("b")])
    assert not await used.note_players(APP, [Player("b")])

    assert await used.count_players(APP) == 2
    assert await used.count_players(OTHER) == 0


async def test_the_count_is_accurate_to_two_percent(used: QuotaUsage) -> None:
    await used.note_players(APP, [Player(f"player-{n}") for n in range(20_000)])

    assert abs(await used.count_players(APP) - 20_000) < 400


async def test_a_player_without_messages_for_the_retention_is_not_counted(
    used: QuotaUsage, clock: Clock
) -> None:
    await used.note_players(APP, [Player("old")])
    clock.now_ms += 3 * PERIOD_MS
    await used.note_players(APP, [Player("new")])
    assert await used.count_players(APP) == 2

    clock.now_ms += PERIOD_MS

    assert await used.count_players(APP) == 1


async def test_counts_of_players_expire(
    used: QuotaUsage, redis: RedisConnection, clock: Clock
) -> None:
    await used.note_players(APP, [Player("a")])

    key = keys_of().players(APP, clock.now_ms // PERIOD_MS)
    assert 0 < await redis.call("PTTL", key) <= 5 * PERIOD_MS


async def test_players_without_an_inbox_are_counted(
    used: QuotaUsage, redis: RedisConnection
) -> None:
    await Inbox(redis).append(Log(APP, Player("a")), [b'"body":"b"}'])

    assert await used.without_inbox(APP, [Player("a")]) == 0
    assert await used.without_inbox(APP, [Player("a"), Player("b")]) == 1
    assert await used.without_inbox(OTHER, [Player("a")]) == 1


# Schedule slots.


async def test_slots_are_taken_for_all_or_none(used: QuotaUsage) -> None:
    due_ms = NOON_MS + 5_000
    assert await used.take_schedule_slots(
        APP, {"1": due_ms, "2": due_ms}, slots_max=3
    ) == (
        0,
        ["1", "2"],
    )

    wait_ms, fresh = await used.take_schedule_slots(
        APP, {"3": due_ms, "4": due_ms}, slots_max=3
    )

    assert (wait_ms, fresh) == (5_000, [])
    assert await used.take_schedule_slots(APP, {"3": due_ms}, slots_max=3) == (0, ["3"])


async def test_a_schedule_takes_one_slot(used: QuotaUsage) -> None:
    await used.take_schedule_slots(APP, {"1": NOON_MS + 1}, slots_max=1)

    assert await used.take_schedule_slots(APP, {"1": NOON_MS + 1}, slots_max=1) == (
        0,
        [],
    )


async def test_a_slot_is_freed_when_its_schedule_is_due(
    used: QuotaUsage, clock: Clock
) -> None:
    await used.take_schedule_slots(
        APP, {"1": NOON_MS + 10, "2": NOON_MS + 20}, slots_max=2
    )
    wait_ms, _ = await used.take_schedule_slots(APP, {"3": NOON_MS + 99}, slots_max=2)
    assert wait_ms == 10

    clock.now_ms += 10

    assert await used.take_schedule_slots(APP, {"3": NOON_MS + 99}, slots_max=2) == (
        0,
        ["3"],
    )


async def test_waiting_does_not_help_for_more_than_all_slots(
    used: QuotaUsage,
) -> None:
    asked = {str(n): NOON_MS + 1 for n in range(3)}

    assert await used.take_schedule_slots(APP, asked, slots_max=2) == (
        RETRY_WHEN_FULL_MS,
        [],
    )


async def test_a_slot_can_be_freed_and_moved(used: QuotaUsage, clock: Clock) -> None:
    await used.take_schedule_slots(
        APP, {"1": NOON_MS + 10, "2": NOON_MS + 10}, slots_max=2
    )

    await used.free_schedule_slots(APP, ["1", "none"])
    await used.move_schedule_slot(APP, "2", NOON_MS + 1_000)
    await used.move_schedule_slot(APP, "1", NOON_MS + 1_000)

    assert await used.take_schedule_slots(APP, {"3": NOON_MS + 99}, slots_max=2) == (
        0,
        ["3"],
    )
    clock.now_ms += 500
    wait_ms, _ = await used.take_schedule_slots(
        APP, {"4": NOON_MS + 9_999, "5": 1}, slots_max=2
    )
    assert wait_ms == 500


async def test_concurrent_requests_take_no_more_than_all_slots(
    used: QuotaUsage,
) -> None:
    outcomes = await asyncio.gather(
        *(
            used.take_schedule_slots(APP, {str(n): NOON_MS + 1}, slots_max=7)
            for n in range(30)
        )
    )

    assert sum(not wait_ms for wait_ms, _ in outcomes) == 7

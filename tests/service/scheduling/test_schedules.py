"""The operations on schedules: rights, limits, idempotency and atomicity."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from streamer.core.access.rights import DEFAULT_SCOPES, Caller
from streamer.core.schedule import AHEAD_MAX_MS, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
)
from streamer.model import App, Log, Notification, Player, decode_fragment, iso_time
from streamer.service.scheduling.schedules import (
    RECIPIENTS_MAX,
    SPREAD_MAX_MS,
    Schedules,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON, Clock

MESSAGE = Notification(body="b")
ALICE, BOB = Player("alice"), Player("bob")


@pytest.fixture
def timetable(redis: RedisConnection, clock: Clock) -> Timetable:
    return Timetable(redis, LogSettings(clock_us=clock))


@pytest.fixture
def schedules(redis: RedisConnection, timetable: Timetable) -> Schedules:
    return Schedules(redis, timetable)


@pytest.fixture
def backend() -> Caller:
    return Caller.from_key(App("app"), DEFAULT_SCOPES)


def caller_of(app: str = "app", *scopes: str) -> Caller:
    return Caller.from_key(App(app), frozenset(scopes) or DEFAULT_SCOPES)


async def count(redis: RedisConnection, clock: Clock, player: Player) -> int:
    read = await Inbox(redis, LogSettings(clock_us=clock)).read_after(
        Log(App("app"), player), Start.EARLIEST, count=100
    )
    return len(read.history.entries)


# Times.


@pytest.mark.parametrize(
    ("due_ms", "starts_ms"),
    [
        (NOON + AHEAD_MAX_MS, NOON + AHEAD_MAX_MS),
        (NOON + 1, NOON + 1),
        (NOON, NOON),
        (NOON - 1, NOON),
        (0, NOON),
        (-62_135_683_140_000, NOON),
    ],
)
async def test_a_time_is_within_thirty_days_and_a_past_one_is_now(
    schedules: Schedules, backend: Caller, due_ms: int, starts_ms: int
) -> None:
    created, _ = await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=due_ms)

    assert created.due_ms == starts_ms
    assert (await schedules.get(backend, created.id)).due_ms == starts_ms


@pytest.mark.parametrize(
    "due_ms", [NOON + AHEAD_MAX_MS + 1, 253_402_300_799_000, 2**63]
)
async def test_a_time_beyond_thirty_days_is_refused(
    schedules: Schedules, backend: Caller, timetable: Timetable, due_ms: int
) -> None:
    with pytest.raises(Invalid):
        await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=due_ms)
    with pytest.raises(Invalid):
        await schedules.schedule_each(
            backend, [ALICE], MESSAGE, due_ms=due_ms, label="l"
        )

    assert await schedules.page(backend, after=(0, ""), limit=9) == []


async def test_only_the_stores_clock_is_used(
    redis: RedisConnection, backend: Caller, clock: Clock
) -> None:
    """E4: nodes with different clocks schedule the same, since no clock is read."""
    clock.now_ms = 5_000  # A store whose clock is 57 years behind every node.
    schedules = Schedules(redis, Timetable(redis, LogSettings(clock_us=clock)))

    created, _ = await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=0)

    assert created.due_ms == 5_000
    with pytest.raises(Invalid):
        await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=NOON)


# Scheduling.


async def test_a_returned_schedule_equals_the_stored_one(
    schedules: Schedules, backend: Caller
) -> None:
    for players in ([ALICE], [ALICE, BOB]):
        created, replayed = await schedules.schedule(
            backend, players, MESSAGE, due_ms=NOON + 5, spread_ms=1_000, label="l"
        )

        assert not replayed
        assert await schedules.get(backend, created.id) == created
        assert created.total == len(players)


async def test_each_player_has_a_schedule_of_its_own(
    schedules: Schedules, backend: Caller
) -> None:
    players = [ALICE, BOB, ALICE]

    ids, _ = await schedules.schedule_each(
        backend, players, MESSAGE, due_ms=NOON + 5, label="l"
    )

    assert ids[0] == ids[2] != ids[1]
    stored = [await schedules.get(backend, schedule_id) for schedule_id in ids]
    assert [schedule.player for schedule in stored] == players


async def test_a_schedule_that_is_due_is_sent_at_once(
    schedules: Schedules, backend: Caller, redis: RedisConnection, clock: Clock
) -> None:
    await schedules.schedule_each(backend, [ALICE], MESSAGE, due_ms=0, label="l")

    assert await count(redis, clock, ALICE) == 1


async def test_one_forbidden_player_schedules_nothing(
    schedules: Schedules, backend: Caller
) -> None:
    player = Caller(App("app"), ALICE, frozenset({"notification:player:self:*"}))

    with pytest.raises(Forbidden):
        await schedules.schedule(player, [ALICE, BOB], MESSAGE, due_ms=NOON)

    assert await schedules.page(backend, after=(0, ""), limit=9) == []


@pytest.mark.parametrize(
    ("players", "spread_ms"),
    [
        ([ALICE], SPREAD_MAX_MS + 1),
        ([ALICE], -1),
        ([Player(f"p{i}") for i in range(RECIPIENTS_MAX + 1)], 0),
    ],
)
async def test_beyond_a_limit_nothing_is_scheduled(
    schedules: Schedules, backend: Caller, players: Sequence[Player], spread_ms: int
) -> None:
    with pytest.raises(Invalid):
        await schedules.schedule(
            backend, players, MESSAGE, due_ms=NOON, spread_ms=spread_ms
        )

    assert await schedules.page(backend, after=(0, ""), limit=9) == []


# Idempotency.


@pytest.mark.parametrize("players", [[ALICE], [ALICE, BOB]])
async def test_a_repetition_creates_nothing_and_returns_the_same(
    schedules: Schedules, backend: Caller, clock: Clock, players: list[Player]
) -> None:
    first, _ = await schedules.schedule(
        backend, players, MESSAGE, due_ms=0, idempotency_key="k"
    )
    clock.now_ms += 60_000

    again = await schedules.schedule(
        backend, players, MESSAGE, due_ms=0, idempotency_key="k"
    )

    assert again == (first, True)
    assert len(await schedules.page(backend, after=(0, ""), limit=9)) == 1


@pytest.mark.parametrize("players", [[ALICE], [ALICE, BOB]])
async def test_concurrent_repetitions_create_one(
    schedules: Schedules, backend: Caller, players: list[Player]
) -> None:
    twins = await asyncio.gather(
        *(
            schedules.schedule(
                backend, players, MESSAGE, due_ms=NOON + 5, idempotency_key="k"
            )
            for _ in range(20)
        )
    )

    assert len({created for created, _ in twins}) == 1
    assert sum(not replayed for _, replayed in twins) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"players": [BOB]},
        {"players": [ALICE, BOB]},
        {"due_ms": NOON + 6},
        {"spread_ms": 1},
        {"notification": Notification(body="c")},
    ],
)
async def test_another_request_with_the_key_is_refused(
    schedules: Schedules, backend: Caller, change: dict[str, Any]
) -> None:
    request: dict[str, Any] = {
        "players": [ALICE],
        "notification": MESSAGE,
        "due_ms": NOON + 5,
        "idempotency_key": "k",
    }
    await schedules.schedule(backend, **request)

    with pytest.raises(Conflict):
        await schedules.schedule(backend, **{**request, **change})

    # The same key of another app is another key.
    await schedules.schedule(caller_of("other"), **{**request, **change})


class Fragile(RedisConnection):
    """A connection that fails at its nth command only."""

    def __init__(self, url: str, *, fails_at: int, done: bool) -> None:
        super().__init__(url)
        self._left = fails_at
        self._done = done

    async def call_many(self, commands: Any, *, write: bool = False) -> list[Any]:
        self._left -= 1
        if self._left:
            return await super().call_many(commands, write=write)
        if self._done:
            await super().call_many(commands, write=write)
        raise OutcomeUnknown if write else StoreUnavailable


@pytest.mark.parametrize("fails_at", range(1, 9))
@pytest.mark.parametrize("done", [False, True])
async def test_a_repetition_completes_an_interrupted_request(
    store_url: str,
    clock: Clock,
    schedules: Schedules,
    backend: Caller,
    fails_at: int,
    done: bool,
) -> None:
    redis = Fragile(store_url, fails_at=fails_at, done=done)
    fragile = Schedules(redis, Timetable(redis, LogSettings(clock_us=clock)))
    players = [ALICE, BOB]
    due_ms = NOON + 5

    async def both(of: Schedules) -> tuple[str, list[str]]:
        created, _ = await of.schedule(
            backend, players, MESSAGE, due_ms=due_ms, idempotency_key="k"
        )
        ids, _ = await of.schedule_each(
            backend, players, MESSAGE, due_ms=due_ms, label="l", idempotency_key="e"
        )
        return created.id, ids

    for _ in range(2):
        try:
            await both(fragile)
        except (StoreUnavailable, OutcomeUnknown):
            continue
        break
    one, each = await both(schedules)
    await redis.close()

    stored = await schedules.page(backend, after=(0, ""), limit=9)
    assert {schedule.id for schedule in stored} == {one, *each}
    assert [schedule.total for schedule in stored].count(2) == 1


# Reading, cancelling, moving.


async def test_schedules_require_their_app_and_scope(
    schedules: Schedules, backend: Caller
) -> None:
    created, _ = await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=NOON + 5)
    sender = caller_of("app", "notifications:send")
    foreign = caller_of("other")

    for ask in (schedules.get, schedules.cancel):
        with pytest.raises(NotFound):
            await ask(foreign, created.id)
        with pytest.raises(NotFound):
            await ask(backend, "nothing")
        with pytest.raises(Forbidden):
            await ask(sender, created.id)
    with pytest.raises(NotFound):
        await schedules.move(foreign, created.id, NOON)
    with pytest.raises(Forbidden):
        await schedules.move(sender, created.id, NOON)
    assert await schedules.page(foreign, after=(0, ""), limit=9) == []
    with pytest.raises(Forbidden):
        await schedules.page(sender, after=(0, ""), limit=9)


async def test_cancelling_returns_whether_it_did(
    schedules: Schedules, timetable: Timetable, backend: Caller
) -> None:
    created, _ = await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=NOON + 5)
    sent, _ = await schedules.schedule(backend, [BOB], MESSAGE, due_ms=NOON)
    await timetable.firing.fire([sent])

    assert await schedules.cancel(backend, created.id) == (
        created.id,
        ScheduleState.CANCELLED,
        True,
    )
    assert await schedules.cancel(backend, created.id) == (
        created.id,
        ScheduleState.CANCELLED,
        False,
    )
    assert await schedules.cancel(backend, sent.id) == (
        sent.id,
        ScheduleState.SENT,
        False,
    )


async def test_cancelling_many_returns_the_cancelled_ones(
    schedules: Schedules, timetable: Timetable, backend: Caller
) -> None:
    ids, _ = await schedules.schedule_each(
        backend, [ALICE, BOB], MESSAGE, due_ms=NOON + 5, label="l"
    )
    sent, _ = await schedules.schedule(backend, [BOB], MESSAGE, due_ms=NOON)
    await timetable.firing.fire([sent])
    audience, _ = await schedules.schedule(
        backend, [ALICE, BOB], MESSAGE, due_ms=NOON + 5
    )
    foreign, _ = await schedules.schedule(
        caller_of("other"), [ALICE], MESSAGE, due_ms=NOON + 5
    )

    ids_to_cancel = [*ids, sent.id, audience.id, foreign.id, "x", ids[0]]
    assert await schedules.cancel_many(backend, ids_to_cancel) == ids
    assert await schedules.cancel_many(backend, ids_to_cancel) == []
    assert (await schedules.get(backend, audience.id)).state is ScheduleState.PENDING


async def test_a_schedule_is_moved_within_thirty_days(
    schedules: Schedules, backend: Caller, clock: Clock
) -> None:
    created, _ = await schedules.schedule(backend, [ALICE], MESSAGE, due_ms=NOON + 5)

    assert (await schedules.move(backend, created.id, NOON + AHEAD_MAX_MS)).done
    with pytest.raises(Invalid):
        await schedules.move(backend, created.id, NOON + AHEAD_MAX_MS + 1)
    assert (await schedules.get(backend, created.id)).due_ms == NOON + AHEAD_MAX_MS
    clock.now_ms += 9
    assert (await schedules.move(backend, created.id, 0)).done
    assert (await schedules.get(backend, created.id)).due_ms == NOON + 9


@pytest.mark.parametrize("players", [[ALICE], [ALICE, BOB]])
async def test_a_ttl_starts_at_the_time_of_the_schedule(
    schedules: Schedules,
    timetable: Timetable,
    backend: Caller,
    players: list[Player],
) -> None:
    message = Notification(body="b", data={"expires_at": iso_time(NOON + 15)})
    created, _ = await schedules.schedule(
        backend, players, message, due_ms=NOON + 5, ttl_ms=10
    )
    assert created.expires_ms == NOON + 15

    await schedules.move(backend, created.id, NOON + 100)

    moved = await schedules.get(backend, created.id)
    assert (moved.due_ms, moved.expires_ms) == (NOON + 100, NOON + 110)
    notification = decode_fragment(moved.fragment)
    assert notification.expires_at == iso_time(NOON + 110)
    assert notification.data == message.data


async def test_a_schedule_after_the_expiry_is_refused(
    schedules: Schedules, backend: Caller
) -> None:
    message = Notification(body="b", expires_at=iso_time(NOON + 10))

    with pytest.raises(Invalid):
        await schedules.schedule(backend, [ALICE], message, due_ms=NOON + 10)
    created, _ = await schedules.schedule(backend, [ALICE], message, due_ms=NOON + 9)
    with pytest.raises(Invalid):
        await schedules.move(backend, created.id, NOON + 10)

    assert (await schedules.get(backend, created.id)).due_ms == NOON + 9


async def test_a_repetition_with_a_ttl_returns_the_same(
    schedules: Schedules, backend: Caller, clock: Clock
) -> None:
    first, _ = await schedules.schedule(
        backend, [ALICE], MESSAGE, due_ms=0, ttl_ms=10, idempotency_key="k"
    )
    clock.now_ms += 5

    again, replayed = await schedules.schedule(
        backend, [ALICE], MESSAGE, due_ms=0, ttl_ms=10, idempotency_key="k"
    )

    assert replayed
    assert (again.id, again.expires_ms) == (first.id, NOON + 10)


async def test_a_repeatedly_moved_audience_keeps_its_recipients(
    schedules: Schedules, backend: Caller, redis: RedisConnection
) -> None:
    created, _ = await schedules.schedule(
        backend, [ALICE, BOB], MESSAGE, due_ms=NOON + AHEAD_MAX_MS
    )
    for bucket in created.buckets:
        # As if most of its TTL had passed.
        await redis.call(
            "PEXPIRE", keys_of().recipients(bucket, created.app, created.id), 1_000
        )

    await schedules.move(backend, created.id, NOON + AHEAD_MAX_MS)

    for bucket in created.buckets:
        left_ms = await redis.call(
            "PTTL", keys_of().recipients(bucket, created.app, created.id)
        )
        assert left_ms > AHEAD_MAX_MS

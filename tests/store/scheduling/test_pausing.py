"""
Pausing and resuming schedules: every state with every operation, against a model.

The model is a value. Its states are found by trying every operation in every state;
each is then reached in the store by the shortest way, and the operation is done there.
Every way has a schedule and a clock of its own, so all of them are done at the same
time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

import pytest

from streamer.core.deployment import PAUSES
from streamer.core.schedule import Schedule, ScheduleState, bucket_starts_ms
from streamer.errors import StoreUnavailable
from streamer.model import Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import bucket_of, keys_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.scheduling.inspection import DueCounts, count_due, first_due
from streamer.store.scheduling.schedule_records import (
    PAUSED_MAX_MS,
    ScheduleRef,
    new_schedule_id,
)
from streamer.store.scheduling.timetable import ChangeResult, Timetable

from ...clock import NOON, Clock
from .timetables import APP, FRAGMENT, audience, campaign, received, reminder, state_of

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
PENDING, SENDING, PAUSED, SENT, CANCELLED = (
    ScheduleState.PENDING,
    ScheduleState.SENDING,
    ScheduleState.PAUSED,
    ScheduleState.SENT,
    ScheduleState.CANCELLED,
)


class Model(NamedTuple):
    """What a schedule is expected to be. `left` are the buckets not served yet."""

    state: ScheduleState
    is_due: bool
    begun: bool
    left: int

    @property
    def is_open(self) -> bool:
        return self.state in (PENDING, PAUSED)


def after(model: Model, operation: str, *, single: bool) -> Model:
    """Return what an operation makes of a schedule: the rules, once more."""
    state, is_due, begun, left = model
    match operation:
        case "pause" if state in (PENDING, SENDING):
            return model._replace(state=PAUSED)
        case "resume" if state is PAUSED:
            return model._replace(state=SENDING if begun else PENDING)
        case "cancel" if model.is_open:
            return model._replace(state=CANCELLED)
        case "move" if model.is_open and not begun:
            return model._replace(is_due=False)
        case "wait":
            return model._replace(is_due=True)
        case "fire" if state is PENDING and is_due and single:
            return model._replace(state=SENT, left=0)
        case "fire" if state is PENDING and is_due:
            return model._replace(state=SENDING, begun=True)
        case "serve" if begun and state in (SENDING, PAUSED):
            return model._replace(state=state if left > 1 else SENT, left=left - 1)
        case "overdue":
            return model._replace(
                is_due=True, state=CANCELLED if state is PAUSED else state
            )
    return model


OPERATIONS: Final = (
    *("pause", "resume", "cancel", "move", "wait", "fire", "serve", "overdue"),
)
CHANGES: Final = ("pause", "resume", "cancel", "move", "overdue")


def ways(*, single: bool) -> Iterator[list[str]]:
    """Yield the shortest way to each state of the model, and each operation there."""
    begin = Model(PENDING, False, False, 1 if single else 2)
    shortest: dict[Model, list[str]] = {begin: []}
    for model in (queue := [begin]):
        for operation in OPERATIONS:
            yield [*shortest[model], operation]
            reached = after(model, operation, single=single)
            if reached not in shortest:
                shortest[reached] = [*shortest[model], operation]
                queue.append(reached)


class Case:
    """One schedule in the store beside its model, with a clock of its own."""

    def __init__(self, redis: RedisConnection, inbox: Inbox, number: str) -> None:
        self.redis, self.inbox = redis, inbox
        self.clock = Clock()
        self.timetable = Timetable(redis, LogSettings(clock_us=self.clock))
        self.players = [f"{number}-{i}" for i in range(2)]
        while bucket_of(APP, self.players[0]) == bucket_of(APP, self.players[1]):
            self.players[1] += "x"
        self.done: list[str] = []

    async def begin(self, *, single: bool) -> None:
        self.single = single
        self.model = Model(PENDING, False, False, 1 if single else 2)
        self.due_ms = self.clock.now_ms + HOUR_MS
        if single:
            self.players = self.players[:1]
            self.schedule = reminder(self.players[0], self.due_ms)
            assert (await self.timetable.add(self.schedule)).added
        else:
            self.schedule = await audience(
                self.timetable, *self.players, due_ms=self.due_ms
            )
        self.ref = ScheduleRef.of(self.schedule)
        self.paused_ms = 0

    async def do(self, operation: str) -> None:
        self.done.append(operation)
        expected = after(self.model, operation, single=self.single)
        result = await self._do(operation)
        if operation in CHANGES:
            assert result is not None
            assert result.state is expected.state, self.done
            moved = operation == "move" and self.model.is_open and not self.model.begun
            changed = expected.state is not self.model.state or moved
            assert result.done is changed, self.done
        if expected.state is PAUSED is not self.model.state:
            self.paused_ms = self.clock.now_ms
        self.model = expected

    async def _do(self, operation: str) -> ChangeResult | None:
        match operation:
            case "pause":
                return await self.timetable.pause(self.ref)
            case "resume":
                return await self.timetable.resume(self.ref, due_ms=self.due_ms)
            case "cancel":
                return await self._closed(await self.timetable.cancel(self.ref))
            case "move":
                due_ms = self.clock.now_ms + HOUR_MS
                result = await self.timetable.cancel(self.ref, due_ms=due_ms)
                self.due_ms = due_ms if result.done else self.due_ms
                return result
            case "wait":
                self.clock.now_ms += HOUR_MS
            case "fire" if self.single:
                await self.timetable.firing.fire([self.schedule])
            case "fire":
                await self.timetable.firing.begin_sending([self.ref])
            case "serve":
                await self._serve()
            case "overdue":
                self.clock.now_ms += PAUSED_MAX_MS
                return await self._closed(await self.timetable.cancel_overdue(self.ref))
        return None

    async def _closed(self, result: ChangeResult) -> ChangeResult:
        if result.begun and result.state is CANCELLED:
            await self.timetable.recipients.close(self.schedule)
        return result

    async def _serve(self) -> None:
        """Do what a sender does that read the schedule when it was being sent."""
        if not self.model.begun:
            return
        served = await self.timetable.recipients.served_buckets(self.schedule)
        recipients = self.timetable.recipients
        for bucket in [it for it in self.schedule.buckets if it not in served][:1]:
            players, count = await recipients.next_players(
                self.schedule, bucket, limit=9
            )
            if players:
                await recipients.deliver(self.schedule, bucket, players)
                _, count = await recipients.next_players(self.schedule, bucket, limit=9)
            await recipients.finish(self.schedule, {bucket: count or 0})

    async def check(self) -> None:
        """Compare the store with the model."""
        model, ref, keys = self.model, self.ref, self.redis.keys
        found = await self.timetable.get(APP, ref.id)
        assert found is not None
        assert found.state is model.state, self.done
        assert found.due_ms == self.due_ms
        texts = [await received(self.inbox, player) for player in self.players]
        served = len(self.players) - model.left
        assert found.delivered == served, self.done
        # Sent late, it has a member more.
        assert sum(len(text) for text in texts) == served, self.done
        assert all(one.endswith(FRAGMENT) for text in texts for one in text)
        expected_ms = {PENDING: self.due_ms, PAUSED: self.paused_ms + PAUSED_MAX_MS}
        due = await self._score(keys.due(ref.bucket, APP))
        assert due == expected_ms.get(model.state), self.done
        paused = await self._score(keys.paused(ref.bucket, APP))
        assert paused == (self.paused_ms if model.state is PAUSED else None), self.done
        sending = await self._score(keys.sending(ref.bucket))
        assert (sending is not None) is (model.state is SENDING), self.done

    async def _score(self, key: str) -> int | None:
        score = await self.redis.call("ZSCORE", key, self.ref.member)
        return None if score is None else int(float(score))


async def walk(case: Case, way: list[str], *, single: bool) -> None:
    await case.begin(single=single)
    for operation in way:
        await case.do(operation)
    await case.check()


async def test_nothing_is_paused_while_an_older_node_could_not_read_it(
    redis: RedisConnection, timetable: Timetable
) -> None:
    schedule = reminder("ann", NOON + HOUR_MS)
    await timetable.add(schedule)
    redis.terms.level = PAUSES - 1

    with pytest.raises(StoreUnavailable) as refused:
        await timetable.pause(ScheduleRef.of(schedule))

    assert "older version" in refused.value.words
    assert await state_of(timetable, schedule) is PENDING


@pytest.mark.parametrize("single", [True, False])
async def test_every_operation_in_every_state(
    redis: RedisConnection, inbox: Inbox, single: bool
) -> None:
    found = list(ways(single=single))

    await asyncio.gather(
        *(
            walk(Case(redis, inbox, f"w{i}"), way, single=single)
            for i, way in enumerate(found)
        )
    )

    # The model is not smaller than it should be.
    pairs = {pair for way in found for pair in pairwise(way)}
    assert {("pause", "cancel"), ("pause", "overdue"), ("pause", "resume")} <= pairs
    assert {way[-1] for way in found} == set(OPERATIONS)


@pytest.mark.parametrize("single", [True, False])
async def test_random_ways_through_the_states(
    redis: RedisConnection, inbox: Inbox, single: bool
) -> None:
    rng = random.Random(20)
    # Mostly what leads on, so that a way does not end at its first step.
    often = [*OPERATIONS[:2] * 4, "move", "wait", *OPERATIONS[4:7] * 2, "cancel"]

    await asyncio.gather(
        *(
            walk(Case(redis, inbox, f"r{i}"), rng.choices(often, k=14), single=single)
            for i in range(60)
        )
    )


async def test_a_concurrent_pause_and_send_agree(
    redis: RedisConnection, timetable: Timetable, inbox: Inbox
) -> None:
    made = [reminder(f"p{i}") for i in range(300)]
    await asyncio.gather(*(timetable.add(schedule) for schedule in made))

    async def after_a_while(step: Awaitable[T]) -> T:
        for _ in range(random.randrange(4)):
            await asyncio.sleep(0)
        return await step

    async def race(schedule: Schedule) -> tuple[bool, bool]:
        paused, fired = await asyncio.gather(
            after_a_while(timetable.pause(ScheduleRef.of(schedule))),
            after_a_while(timetable.firing.fire([schedule])),
        )
        return paused.done, bool(fired)

    outcomes = await asyncio.gather(*map(race, made))

    for schedule, (paused, fired) in zip(made, outcomes, strict=True):
        assert paused is not fired
        assert schedule.player is not None
        assert len(await received(inbox, schedule.player)) == int(fired)
        assert await state_of(timetable, schedule) is (SENT if fired else PAUSED)


async def test_resuming_tells_schedulers(
    redis: RedisConnection, timetable: Timetable, clock: Clock
) -> None:
    schedule = reminder("p", NOON + HOUR_MS)
    await timetable.add(schedule)
    await timetable.pause(ScheduleRef.of(schedule))
    clock.now_ms += 2 * HOUR_MS
    assert await timetable.firing.due(clock.now_ms, limit=9) == []

    await timetable.resume(ScheduleRef.of(schedule), due_ms=schedule.due_ms)

    assert await timetable.firing.due(clock.now_ms, limit=9) == [
        ScheduleRef.of(schedule)
    ]


async def test_resuming_what_was_moved_meanwhile_does_nothing(
    timetable: Timetable,
) -> None:
    schedule = reminder("p", NOON + HOUR_MS)
    ref = ScheduleRef.of(schedule)
    await timetable.add(schedule)
    await timetable.pause(ref)
    await timetable.cancel(ref, due_ms=NOON + 2 * HOUR_MS)

    assert await timetable.resume(ref, due_ms=NOON + HOUR_MS) is None

    assert await state_of(timetable, schedule) is PAUSED


async def test_the_rest_of_a_spread_audience_waits_as_long_as_it_was_paused(
    timetable: Timetable, clock: Clock
) -> None:
    schedule = await audience(timetable, "a", "b", spread_ms=HOUR_MS)
    ref = ScheduleRef.of(schedule)
    await timetable.firing.begin_sending([ref])
    for paused_ms in (5_000, 7_000):
        await timetable.pause(ref)
        clock.now_ms += paused_ms
        await timetable.resume(ref, due_ms=schedule.due_ms)

    found = await timetable.get(APP, schedule.id)

    assert found is not None
    assert bucket_starts_ms(found, 1) == NOON + HOUR_MS // 2 + 12_000


async def test_a_campaign_that_is_cancelled_while_paused_reaches_nobody_more(
    timetable: Timetable, redis: RedisConnection
) -> None:
    schedule, _ = await campaign(timetable, slots_max=1)
    ref = ScheduleRef.of(schedule)
    await timetable.firing.begin_sending([ref])
    await timetable.pause(ref)

    cancelled = await timetable.cancel(ref, campaign="c")
    await timetable.recipients.close(schedule)

    assert cancelled == ChangeResult(CANCELLED, True, begun=True)
    counts = await timetable.recipients.enlist_cards(schedule, schedule.buckets)
    assert set(counts.values()) == {0}
    # It has begun, so it holds its slot.
    assert await redis.call("SCARD", redis.keys.slots(APP, "c")) == 1
    assert not (await campaign(timetable, slots_max=1))[1]


async def test_a_campaign_cancelled_before_it_begins_frees_its_slot(
    timetable: Timetable, redis: RedisConnection
) -> None:
    schedule, _ = await campaign(timetable, slots_max=1)
    ref = ScheduleRef.of(schedule)
    await timetable.pause(ref)

    await timetable.cancel(ref, campaign="c")

    assert await redis.call("SCARD", redis.keys.slots(APP, "c")) == 0


async def test_paused_schedules_are_listed_apart(
    redis: RedisConnection, timetable: Timetable, clock: Clock
) -> None:
    made = [reminder(f"p{i}", NOON + i) for i in range(4)]
    for schedule in made:
        await timetable.add(schedule)
    refs = [ScheduleRef.of(schedule) for schedule in made]
    for ref in refs[:2]:
        clock.now_ms += 1
        await timetable.pause(ref)

    assert await first_due(redis, APP, count=9) == [refs[1], refs[0], refs[2], refs[3]]
    assert await count_due(redis, APP, now_ms=NOON) == DueCounts(2, 0, 0, 2)


def test_the_keys_of_a_schedule_share_a_slot() -> None:
    keys, bucket = keys_of(), bucket_of(APP, "p")
    ref = ScheduleRef(bucket, APP, new_schedule_id(bucket))
    names = (
        *ref.keys(keys),
        keys.paused(bucket, APP),
        keys.inbox(Log(APP, Player("p"))).log,
    )
    assert len({name.partition("{")[2].partition("}")[0] for name in names}) == 1

"""The admission queue: the order of service, and which arrivals are refused."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from streamer.errors import Limit, LimitReached
from streamer.service.streams.admission_queue import RETRY_AFTER_MAX_S, AdmissionQueue


class World:
    """A queue with a clock set by the tests, its holders and its waiters."""

    def __init__(self, capacity: int = 2, wait_max_s: float = 5) -> None:
        self.now_s = 100.0
        self.queue = AdmissionQueue(
            capacity,
            Limit.CONNECTS_PER_SECOND,
            wait_max_s=wait_max_s,
            clock_s=lambda: self.now_s,
        )
        self.served: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._released: dict[int, asyncio.Event] = {}

    async def come(self, count: int = 1) -> None:
        for _ in range(count):
            number = len(self._tasks)
            self._released[number] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._hold(number)))
        await self._settle()

    async def _hold(self, number: int) -> None:
        async with self.queue:
            self.served.append(number)
            await self._released[number].wait()

    async def serve(self, count: int) -> None:
        """End the blocks of the oldest holders."""
        for _ in range(count):
            number = next(n for n in self.served if not self._released[n].is_set())
            self._released[number].set()
            await self._settle()

    async def serve_in(self, seconds: float, count: int) -> None:
        """Let time pass, and end blocks evenly meanwhile."""
        for _ in range(count):
            self.now_s += seconds / count
            await self.serve(1)

    async def leave(self, number: int) -> None:
        """Let a waiter give up."""
        self._tasks[number].cancel()
        await asyncio.wait([self._tasks[number]])

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def retry_after_s(self) -> int | None:
        """Return with what time the next arrival is refused, None if it may wait."""
        try:
            self.queue.require_capacity()
        except LimitReached as refused:
            assert refused.limit is Limit.CONNECTS_PER_SECOND
            return refused.retry_after_s
        return None


async def test_the_capacity_and_the_order_are_kept() -> None:
    world = World(capacity=2)
    await world.come(5)
    assert world.served == [0, 1]

    await world.serve(1)
    assert world.served == [0, 1, 2]
    await world.serve(2)
    assert world.served == [0, 1, 2, 3, 4]


async def test_a_waiter_that_gives_up_is_passed_over() -> None:
    world = World(capacity=1)
    await world.come(3)
    await world.leave(1)

    await world.serve(1)

    assert world.served == [0, 2]


async def test_an_arrival_that_would_wait_too_long_is_refused_with_the_time() -> None:
    world = World(wait_max_s=5)
    await world.come(2 + 100)

    await world.serve_in(4.8, 8)
    assert world.retry_after_s() is None, "nobody knows yet"
    await world.serve_in(0.6, 1)

    # Nine were served in 5.4 s, and 91 wait.
    assert world.retry_after_s() == RETRY_AFTER_MAX_S
    await world.serve_in(1, 40)
    await world.serve_in(1, 5)
    assert world.retry_after_s() is None, "it has become fast: 46 wait, 40 a second"


async def test_the_time_follows_from_the_rate() -> None:
    world = World(wait_max_s=5)
    await world.come(2 + 400)

    await world.serve_in(1.01, 40)

    # 39.6 per second, and 360 wait.
    assert world.retry_after_s() == 10


async def test_a_fast_queue_refuses_nobody() -> None:
    world = World(wait_max_s=5)
    await world.come(2 + 200)

    await world.serve_in(1.01, 50)

    assert world.retry_after_s() is None


async def test_a_short_pause_of_the_node_is_not_slowness() -> None:
    world = World(wait_max_s=5)
    await world.come(2 + 100)
    world.now_s += 3

    await world.serve(1)

    assert world.retry_after_s() is None


async def test_few_arrivals_are_not_slowness() -> None:
    world = World(capacity=100, wait_max_s=5)
    for _ in range(3):
        await world.come(1)
        world.now_s += 60
        await world.serve(1)
    await world.come(100 + 500)

    assert world.retry_after_s() is None
    await world.serve_in(1.01, 400)
    assert world.retry_after_s() is None


async def test_the_rate_of_a_past_queue_is_forgotten() -> None:
    world = World(capacity=1, wait_max_s=5)
    await world.come(1 + 20)
    world.now_s += 10
    await world.serve(1)
    assert world.retry_after_s() == RETRY_AFTER_MAX_S

    await world.serve(20)
    await world.come(1 + 20)

    assert world.retry_after_s() is None


async def test_a_waiter_that_times_out_is_refused_with_the_time() -> None:
    world = World(capacity=1, wait_max_s=0.01)
    await world.come()
    refusals: Counter[str] = world.queue._refusals

    with pytest.raises(LimitReached) as refused:
        async with world.queue:
            raise AssertionError

    assert refused.value.retry_after_s == 1
    assert refusals == {"connects_per_second": 1}
    await world.serve(1)
    await world.come()
    assert world.served == [0, 1]


async def test_discarded_holders_do_not_count() -> None:
    world = World(capacity=1, wait_max_s=1)
    await world.come()

    async def gone() -> None:
        async with world.queue:
            world.queue.discard_sample()

    left = [asyncio.create_task(gone()) for _ in range(200)]
    await world.come(100)
    await world.serve_in(0.01, 1)
    await asyncio.wait(left)
    await world.come(0)

    await world.serve_in(1, 40)

    # 40 per second, and 59 wait; with the 200 it would be 240 per second.
    assert world.retry_after_s() == 2


@pytest.mark.parametrize("waiting", [0, 1])
async def test_an_error_ends_the_holders_block(waiting: int) -> None:
    world = World(capacity=1)

    with pytest.raises(KeyError):
        async with world.queue:
            await world.come(waiting)
            raise KeyError

    await world.come()
    assert world.served == [0]

"""Whose turn comes when, and who is told to come back."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from streamer.errors import Limit, LimitReached
from streamer.service.streams.admission_queue import RETRY_AFTER_MAX_S, AdmissionQueue


class Queue:
    """Turns on a clock that is set by hand, and those who hold or await one."""

    def __init__(self, most: int = 2, wait_max_s: float = 5) -> None:
        self.now_s = 100.0
        self.turns = AdmissionQueue(
            most,
            Limit.CONNECTS_PER_SECOND,
            wait_max_s=wait_max_s,
            clock_s=lambda: self.now_s,
        )
        self.served: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._let: dict[int, asyncio.Event] = {}

    async def come(self, count: int = 1) -> None:
        for _ in range(count):
            number = len(self._tasks)
            self._let[number] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._take(number)))
        await self._settle()

    async def _take(self, number: int) -> None:
        async with self.turns:
            self.served.append(number)
            await self._let[number].wait()

    async def serve(self, count: int) -> None:
        """End the turns of those who have been at it for longest."""
        for _ in range(count):
            number = next(n for n in self.served if not self._let[n].is_set())
            self._let[number].set()
            await self._settle()

    async def serve_in(self, seconds: float, count: int) -> None:
        """Let time pass, and end turns evenly meanwhile."""
        for _ in range(count):
            self.now_s += seconds / count
            await self.serve(1)

    async def leave(self, number: int) -> None:
        """Let somebody give up."""
        self._tasks[number].cancel()
        await asyncio.wait([self._tasks[number]])

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def retry_after_s(self) -> int | None:
        """Return when the next one is told to come back, None if it may wait."""
        try:
            self.turns.require_capacity()
        except LimitReached as refused:
            assert refused.limit is Limit.CONNECTS_PER_SECOND
            return refused.retry_after_s
        return None


async def test_so_many_at_a_time_and_in_their_order() -> None:
    queue = Queue(most=2)
    await queue.come(5)
    assert queue.served == [0, 1]

    await queue.serve(1)
    assert queue.served == [0, 1, 2]
    await queue.serve(2)
    assert queue.served == [0, 1, 2, 3, 4]


async def test_who_gives_up_is_passed_over() -> None:
    queue = Queue(most=1)
    await queue.come(3)
    await queue.leave(1)

    await queue.serve(1)

    assert queue.served == [0, 2]


async def test_who_would_wait_too_long_is_told_for_how_long() -> None:
    queue = Queue(wait_max_s=5)
    await queue.come(2 + 100)

    await queue.serve_in(4.8, 8)
    assert queue.retry_after_s() is None, "nobody knows yet"
    await queue.serve_in(0.6, 1)

    # Nine turns in 5.4 s, and 91 who wait.
    assert queue.retry_after_s() == RETRY_AFTER_MAX_S
    await queue.serve_in(1, 40)
    await queue.serve_in(1, 5)
    assert queue.retry_after_s() is None, "it has become fast: 46 wait, 40 a second"


async def test_how_long_is_what_the_pace_says() -> None:
    queue = Queue(wait_max_s=5)
    await queue.come(2 + 400)

    await queue.serve_in(1.01, 40)

    # 39.6 a second, and 360 who wait.
    assert queue.retry_after_s() == 10


async def test_a_queue_that_moves_is_worth_waiting_in() -> None:
    queue = Queue(wait_max_s=5)
    await queue.come(2 + 200)

    await queue.serve_in(1.01, 50)

    assert queue.retry_after_s() is None


async def test_a_node_that_stood_still_for_a_moment_is_no_slow_one() -> None:
    queue = Queue(wait_max_s=5)
    await queue.come(2 + 100)
    queue.now_s += 3

    await queue.serve(1)

    assert queue.retry_after_s() is None


async def test_few_who_come_are_no_sign_of_slowness() -> None:
    queue = Queue(most=100, wait_max_s=5)
    for _ in range(3):
        await queue.come(1)
        queue.now_s += 60
        await queue.serve(1)
    await queue.come(100 + 500)

    assert queue.retry_after_s() is None
    await queue.serve_in(1.01, 400)
    assert queue.retry_after_s() is None


async def test_a_queue_that_is_gone_is_forgotten() -> None:
    queue = Queue(most=1, wait_max_s=5)
    await queue.come(1 + 20)
    queue.now_s += 10
    await queue.serve(1)
    assert queue.retry_after_s() == RETRY_AFTER_MAX_S

    await queue.serve(20)
    await queue.come(1 + 20)

    assert queue.retry_after_s() is None


async def test_who_has_waited_in_vain_is_told_as_well() -> None:
    queue = Queue(most=1, wait_max_s=0.01)
    await queue.come()
    refusals: Counter[str] = queue.turns._refusals

    with pytest.raises(LimitReached) as refused:
        async with queue.turns:
            raise AssertionError

    assert refused.value.retry_after_s == 1
    assert refusals == {"connects_per_second": 1}
    await queue.serve(1)
    await queue.come()
    assert queue.served == [0, 1]


async def test_turns_of_those_who_have_left_are_no_measure() -> None:
    queue = Queue(most=1, wait_max_s=1)
    await queue.come()

    async def gone() -> None:
        async with queue.turns:
            queue.turns.discard_sample()

    left = [asyncio.create_task(gone()) for _ in range(200)]
    await queue.come(100)
    await queue.serve_in(0.01, 1)
    await asyncio.wait(left)
    await queue.come(0)

    await queue.serve_in(1, 40)

    # 40 a second, and 59 who wait; with the 200 it would be 240.
    assert queue.retry_after_s() == 2


@pytest.mark.parametrize("waiting", [0, 1])
async def test_an_error_in_a_turn_ends_it(waiting: int) -> None:
    queue = Queue(most=1)

    with pytest.raises(KeyError):
        async with queue.turns:
            await queue.come(waiting)
            raise KeyError

    await queue.come()
    assert queue.served == [0]

"""Ends of connections in portions: how many in a turn, in which order."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from streamer.service.streams.departures import Departures


class Turns:
    """Notes in which turn of the event loop steps are made."""

    def __init__(self) -> None:
        self.number = 0
        self.steps: list[tuple[int, int]] = []
        self._counting = asyncio.create_task(self._count())

    async def _count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)

    def step(self, name: int) -> None:
        self.steps.append((self.number, name))

    async def until_made(self, count: int) -> None:
        while len(self.steps) < count:  # noqa: ASYNC110  # counts turns
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._counting.cancel()


async def test_a_turn_has_room_for_so_many_steps() -> None:
    turns, departures = Turns(), Departures(10)

    for name in range(35):
        departures.do(partial(turns.step, name))

    assert len(turns.steps) == 10
    await turns.until_made(35)
    turns.stop()
    assert [name for _, name in turns.steps] == list(range(35))
    assert max(Counter(turn for turn, _ in turns.steps).values()) == 10
    assert len(departures) == 0


async def test_a_step_does_not_overtake_those_that_wait() -> None:
    made: list[str] = []
    departures = Departures(1)
    departures.do(partial(made.append, "first"))
    departures.do(partial(made.append, "second"))

    assert not departures.take()
    while len(departures):  # noqa: ASYNC110  # the loop has no event for it
        await asyncio.sleep(0)

    assert made == ["first", "second"]


async def test_the_next_turn_has_room_again() -> None:
    departures = Departures(2)
    assert [departures.take() for _ in range(3)] == [True, True, False]

    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert departures.take()


async def test_a_step_that_fails_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise KeyError("broken")

    made: list[str] = []
    departures = Departures(1)
    departures.do(partial(made.append, "first"))
    departures.add(fail)
    departures.add(partial(made.append, "last"))

    while len(departures):  # noqa: ASYNC110  # the loop has no event for it
        await asyncio.sleep(0)

    assert made == ["first", "last"]
    assert "could not complete the end of a connection" in caplog.text


async def test_after_the_finish_none_waits() -> None:
    made: list[int] = []
    departures = Departures(1)
    for name in range(3):
        departures.do(partial(made.append, name))

    departures.finish()
    departures.do(partial(made.append, 3))

    assert made == [0, 1, 2, 3]

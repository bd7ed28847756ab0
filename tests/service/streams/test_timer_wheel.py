"""The timer wheel: which objects are ticked, and when."""

from __future__ import annotations

import pytest

from streamer.service.streams import timer_wheel

TICK_S = 1.0


class TimerWheel(timer_wheel.TimerWheel):
    """A wheel with ticks of a second."""

    def __init__(self, now_s: float) -> None:
        super().__init__(now_s, tick_s=TICK_S)


class RecordingTimed:
    """Records its ticks, and is due again in `in_s`."""

    def __init__(self, in_s: float | None) -> None:
        self.due = 0
        self.in_s = in_s
        self.ticks: list[float] = []

    def tick(self, now_s: float, unix_s: float) -> float | None:
        self.ticks.append(now_s)
        return self.in_s


def tick(wheel: TimerWheel, count: int) -> None:
    for i in range(1, count + 1):
        wheel.advance(i * TICK_S, 0.0)


def test_a_timed_object_is_ticked_when_it_is_due() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(2.5)
    wheel.add(timed)

    tick(wheel, 8)

    assert timed.ticks == [1.0, 4.0, 7.0]


def test_an_object_is_due_no_earlier_than_it_has_said() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(2.0)
    wheel.add(timed)
    wheel.advance(1.7, 0.0)

    for now_s in (2.7, 3.1, 3.6, 4.2, 5.5, 6.1, 6.9):
        wheel.advance(now_s, 0.0)

    # It was due at 3.7, which is within the fourth tick, and then at 6.2.
    assert timed.ticks == [1.7, 4.2]


def test_a_timed_object_without_more_to_do_is_not_ticked() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(None)
    wheel.add(timed)

    tick(wheel, 3)

    assert timed.ticks == [1.0]


def test_an_overdue_object_is_ticked_once_a_tick() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(-5.0)
    wheel.add(timed)

    tick(wheel, 3)

    assert timed.ticks == [1.0, 2.0, 3.0]


def test_an_object_that_is_added_again_is_due_once() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(10.0)
    wheel.add(timed, 3.0)
    wheel.add(timed, 2.0)

    tick(wheel, 5)

    assert timed.ticks == [2.0]


def test_missed_ticks_are_made_up_for() -> None:
    wheel, early, late = TimerWheel(0.0), RecordingTimed(None), RecordingTimed(None)
    wheel.add(early, 1.0)
    wheel.add(late, 4.0)

    wheel.advance(4.2, 0.0)

    assert early.ticks == late.ticks == [4.2]


def test_a_tick_touches_only_objects_that_are_due() -> None:
    wheel = TimerWheel(0.0)
    objects = [RecordingTimed(None) for _ in range(10)]
    for i, timed in enumerate(objects):
        wheel.add(timed, float(i + 1))

    wheel.advance(1.0, 0.0)

    assert [len(timed.ticks) for timed in objects] == [1] + [0] * 9


def test_an_object_made_due_sooner_is_ticked_once() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(10.0)
    wheel.add(timed, 6.0)
    wheel.due_sooner(timed, 2.0)

    tick(wheel, 8)

    assert timed.ticks == [2.0]


def test_an_object_made_due_sooner_is_not_postponed() -> None:
    wheel, timed = TimerWheel(0.0), RecordingTimed(10.0)
    wheel.add(timed, 2.0)
    wheel.due_sooner(timed, 6.0)

    tick(wheel, 8)

    assert timed.ticks == [2.0]


def test_a_turn_ticks_no_more_than_its_share_and_the_next_ones_go_on() -> None:
    wheel = TimerWheel(0.0)
    objects = [RecordingTimed(10.0) for _ in range(7)]
    for timed in objects[:5]:
        wheel.add(timed, 1.0)
    for timed in objects[5:]:
        wheel.add(timed, 2.0)
    ticked = []

    while True:
        is_more = wheel.advance(2.0, 0.0, ticked_max=3)
        ticked.append(sum(len(timed.ticks) for timed in objects))
        if not is_more:
            break

    assert ticked == [3, 6, 7]
    assert [timed.ticks for timed in objects] == [[2.0]] * 7


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("change", ["add", "due_sooner"])
def test_a_change_between_two_turns_of_a_tick_repeats_and_loses_nothing(
    first: int, change: str
) -> None:
    wheel = TimerWheel(0.0)
    objects = [RecordingTimed(10.0) for _ in range(4)]
    for timed in objects:
        wheel.add(timed, 1.0)

    wheel.advance(1.0, 0.0, ticked_max=2)
    getattr(wheel, change)(objects[first], 3.0)
    for now_s in (1.0, 2.0, 3.0, 4.0, 5.0):
        while wheel.advance(now_s, 0.0, ticked_max=1):
            pass

    # One that was not ticked is due anew if it was added, and still due otherwise.
    was_ticked = first < 2
    at_once, later = [1.0], [4.0]
    expected = [at_once] * 4
    expected[first] = at_once * was_ticked + later * (change == "add" or was_ticked)
    if change == "due_sooner" and not was_ticked:
        expected[first] = at_once
    assert [timed.ticks for timed in objects] == expected


def test_those_that_connect_in_one_second_are_due_in_different_ticks() -> None:
    wheel = timer_wheel.TimerWheel(0.0)
    ticks = round(1 / timer_wheel.TICK_S)
    objects = [RecordingTimed(25.0) for _ in range(10 * ticks)]
    counts = []
    for i in range(ticks):
        wheel.advance(i * timer_wheel.TICK_S, 0.0)
        for timed in objects[10 * i : 10 * i + 10]:
            wheel.add(timed, 25.0)

    for i in range(25 * ticks, 26 * ticks):
        before = sum(len(timed.ticks) for timed in objects)
        wheel.advance(i * timer_wheel.TICK_S, 0.0)
        counts.append(sum(len(timed.ticks) for timed in objects) - before)

    assert counts == [10] * ticks

from __future__ import annotations

from streamer.service.streams.timer_wheel import TICK_S, TimerWheel


class Counting:
    """Wants to be looked at again in `in_s`."""

    def __init__(self, in_s: float | None) -> None:
        self.due = 0
        self.in_s = in_s
        self.ticks: list[float] = []

    def tick(self, now_s: float, unix_s: float) -> float | None:
        self.ticks.append(now_s)
        return self.in_s


def turn(wheel: TimerWheel, count: int) -> None:
    for i in range(1, count + 1):
        wheel.advance(i * TICK_S, 0.0)


def test_a_rider_is_ticked_when_it_is_due_and_not_before() -> None:
    wheel, timed = TimerWheel(0.0), Counting(2.5)
    wheel.add(timed)

    turn(wheel, 8)

    assert timed.ticks == [1.0, 4.0, 7.0]


def test_a_rider_that_has_nothing_more_to_do_is_left_alone() -> None:
    wheel, timed = TimerWheel(0.0), Counting(None)
    wheel.add(timed)

    turn(wheel, 3)

    assert timed.ticks == [1.0]


def test_a_rider_that_is_overdue_is_ticked_once_a_turn() -> None:
    wheel, timed = TimerWheel(0.0), Counting(-5.0)
    wheel.add(timed)

    turn(wheel, 3)

    assert timed.ticks == [1.0, 2.0, 3.0]


def test_a_rider_that_is_added_again_is_due_once() -> None:
    wheel, timed = TimerWheel(0.0), Counting(10.0)
    wheel.add(timed, 3.0)
    wheel.add(timed, 2.0)

    turn(wheel, 5)

    assert timed.ticks == [2.0]


def test_turns_that_were_missed_are_made_up_for() -> None:
    wheel, early, late = TimerWheel(0.0), Counting(None), Counting(None)
    wheel.add(early, 1.0)
    wheel.add(late, 4.0)

    wheel.advance(4.2, 0.0)

    assert early.ticks == late.ticks == [4.2]


def test_a_turn_touches_only_those_who_are_due() -> None:
    wheel = TimerWheel(0.0)
    riders = [Counting(None) for _ in range(10)]
    for i, timed in enumerate(riders):
        wheel.add(timed, float(i + 1))

    wheel.advance(1.0, 0.0)

    assert [len(timed.ticks) for timed in riders] == [1] + [0] * 9


def test_a_rider_that_is_hastened_is_due_sooner_and_once() -> None:
    wheel, timed = TimerWheel(0.0), Counting(10.0)
    wheel.add(timed, 6.0)
    wheel.due_sooner(timed, 2.0)

    turn(wheel, 8)

    assert timed.ticks == [2.0]


def test_a_rider_that_is_hastened_is_not_put_off() -> None:
    wheel, timed = TimerWheel(0.0), Counting(10.0)
    wheel.add(timed, 2.0)
    wheel.due_sooner(timed, 6.0)

    turn(wheel, 8)

    assert timed.ticks == [2.0]

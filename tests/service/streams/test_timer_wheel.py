from __future__ import annotations

from streamer.service.streams.timer_wheel import TURN_S, Wheel


class Counting:
    """Wants to be looked at again in `in_s`."""

    def __init__(self, in_s: float | None) -> None:
        self.due = 0
        self.in_s = in_s
        self.ticks: list[float] = []

    def tick(self, now_s: float, unix_s: float) -> float | None:
        self.ticks.append(now_s)
        return self.in_s


def turn(wheel: Wheel, count: int) -> None:
    for i in range(1, count + 1):
        wheel.turn(i * TURN_S, 0.0)


def test_a_rider_is_ticked_when_it_is_due_and_not_before() -> None:
    wheel, rider = Wheel(0.0), Counting(2.5)
    wheel.add(rider)

    turn(wheel, 8)

    assert rider.ticks == [1.0, 4.0, 7.0]


def test_a_rider_that_has_nothing_more_to_do_is_left_alone() -> None:
    wheel, rider = Wheel(0.0), Counting(None)
    wheel.add(rider)

    turn(wheel, 3)

    assert rider.ticks == [1.0]


def test_a_rider_that_is_overdue_is_ticked_once_a_turn() -> None:
    wheel, rider = Wheel(0.0), Counting(-5.0)
    wheel.add(rider)

    turn(wheel, 3)

    assert rider.ticks == [1.0, 2.0, 3.0]


def test_a_rider_that_is_added_again_is_due_once() -> None:
    wheel, rider = Wheel(0.0), Counting(10.0)
    wheel.add(rider, 3.0)
    wheel.add(rider, 2.0)

    turn(wheel, 5)

    assert rider.ticks == [2.0]


def test_turns_that_were_missed_are_made_up_for() -> None:
    wheel, early, late = Wheel(0.0), Counting(None), Counting(None)
    wheel.add(early, 1.0)
    wheel.add(late, 4.0)

    wheel.turn(4.2, 0.0)

    assert early.ticks == late.ticks == [4.2]


def test_a_turn_touches_only_those_who_are_due() -> None:
    wheel = Wheel(0.0)
    riders = [Counting(None) for _ in range(10)]
    for i, rider in enumerate(riders):
        wheel.add(rider, float(i + 1))

    wheel.turn(1.0, 0.0)

    assert [len(rider.ticks) for rider in riders] == [1] + [0] * 9


def test_a_rider_that_is_hastened_is_due_sooner_and_once() -> None:
    wheel, rider = Wheel(0.0), Counting(10.0)
    wheel.add(rider, 6.0)
    wheel.hasten(rider, 2.0)

    turn(wheel, 8)

    assert rider.ticks == [2.0]


def test_a_rider_that_is_hastened_is_not_put_off() -> None:
    wheel, rider = Wheel(0.0), Counting(10.0)
    wheel.add(rider, 2.0)
    wheel.hasten(rider, 6.0)

    turn(wheel, 8)

    assert rider.ticks == [2.0]

"""The timer wheel: which objects are ticked, and when."""

from __future__ import annotations

from streamer.service.streams.timer_wheel import TICK_S, TimerWheel


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

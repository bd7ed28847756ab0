"""The watchdog of the event loop: what is measured, and what is logged."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamer.core.counters import WRITE_S, Histogram
from streamer.service.node.loop_lag import INTERVAL_S, QUIET_S, LoopLag

from ...conftest import Until


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def histogram() -> Histogram:
    return Histogram(WRITE_S)


@pytest.fixture
def lag(clock: Clock, histogram: Histogram) -> LoopLag:
    return LoopLag(histogram, logged_ms=250, clock_s=clock, cpu_s=lambda: 0.0)


async def test_a_turn_that_blocks_the_loop_is_observed(
    histogram: Histogram, until: Until
) -> None:
    clock, watched = Clock(), asyncio.Event()

    def now_s() -> float:
        watched.set()
        return clock.now_s

    lag = LoopLag(histogram, logged_ms=0, clock_s=now_s)
    running = asyncio.create_task(lag.run())
    await watched.wait()

    clock.now_s += INTERVAL_S + 0.3
    await until(lambda: histogram.count)
    running.cancel()

    assert histogram.sum == pytest.approx(0.3)


def test_a_lag_is_logged_with_the_share_of_this_process(
    lag: LoopLag, caplog: pytest.LogCaptureFixture
) -> None:
    lag.note(0.312, 0.3)

    assert caplog.messages == [
        "the event loop was 312 ms late, more than 250 ms: this process worked for "
        "300 ms of that and waited for the CPU for the rest"
    ]


def test_a_lag_below_the_bound_is_counted_and_not_logged(
    lag: LoopLag, histogram: Histogram, caplog: pytest.LogCaptureFixture
) -> None:
    lag.note(0.25, 0.25)

    assert histogram.count == 1
    assert not caplog.messages


def test_more_lags_are_one_line_a_minute_with_the_longest(
    lag: LoopLag, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    lag.note(0.3, 0.0)
    for late_s in (0.4, 0.9, 0.5, 0.01):
        clock.now_s += 1
        lag.note(late_s, 1.5)
    assert len(caplog.messages) == 1

    clock.now_s += QUIET_S
    lag.note(0.0, 0.0)
    clock.now_s += QUIET_S
    lag.note(0.0, 0.0)

    assert caplog.messages[1:] == [
        "the event loop was 900 ms late, more than 250 ms (3 times): this process "
        "worked for 900 ms of that and waited for the CPU for the rest"
    ]


def test_a_bound_of_zero_logs_nothing(
    histogram: Histogram, caplog: pytest.LogCaptureFixture
) -> None:
    LoopLag(histogram, logged_ms=0, clock_s=time.monotonic).note(5.0, 5.0)

    assert histogram.count == 1
    assert not caplog.messages

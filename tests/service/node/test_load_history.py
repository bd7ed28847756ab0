"""Samples of this process: what is in them, and how many are kept."""

from __future__ import annotations

import pytest

from streamer.config import Config
from streamer.core.counters import Counters
from streamer.errors import SLOW
from streamer.model import Gap
from streamer.service.node.load_history import SAMPLES_MAX, LoadHistory
from streamer.service.node.store_watch import StoreWatch
from streamer.store.client.connection import RedisConnection


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def history(counters: Counters, clock: Clock) -> LoadHistory:
    redis = RedisConnection("unix:///nowhere")
    watch = StoreWatch(redis, Config())
    return LoadHistory(counters, watch, clock=clock, monotonic=clock)


def test_a_sample_has_what_happened_since_the_last_one(
    history: LoadHistory, counters: Counters, clock: Clock
) -> None:
    counters.sse.opened = 3
    counters.sse.deliveries = 7
    counters.publishes["stored"] = 2
    counters.publish_to_write_s.observe(0.002)
    counters.refusals["players"] = 1
    counters.sse.close(SLOW)
    counters.sse.gaps[next(iter(Gap))] = 4
    clock.now += 5

    sample = history.take()

    assert (sample.at_ms, sample.seconds) == (1_005_000, 5)
    assert sample.connections == {"sse": 2}
    assert (sample.deliveries, sample.publishes) == (7, 2)
    assert sample.refusals == {"players": 1}
    assert (sample.slow, sample.gaps) == (1, 4)
    assert sum(sample.written) == 1
    assert len(sample.written) == len(history.bounds["written"]) + 1

    clock.now += 5
    second = history.take()
    assert (second.deliveries, second.publishes, second.slow, second.gaps) == (0,) * 4
    assert second.refusals == {} and second.written == []
    assert second.connections == {"sse": 2}


def test_what_was_counted_before_the_first_sample_is_not_in_it(
    counters: Counters, clock: Clock
) -> None:
    counters.sse.deliveries = 100
    watch = StoreWatch(RedisConnection("unix:///nowhere"), Config())
    history = LoadHistory(counters, watch, clock=clock, monotonic=clock)

    assert history.take().deliveries == 0


def test_samples_are_asked_for_since_a_time(history: LoadHistory, clock: Clock) -> None:
    times = []
    for _ in range(3):
        clock.now += 5
        times.append(history.take().at_ms)

    assert [it.at_ms for it in history.since(times[0])] == times[1:]
    assert history.since(times[-1]) == []


def test_an_hour_is_kept(history: LoadHistory, clock: Clock) -> None:
    for _ in range(SAMPLES_MAX + 10):
        clock.now += 5
        history.take()

    kept = history.since(0)
    assert len(kept) == SAMPLES_MAX
    assert kept[-1].at_ms - kept[0].at_ms == (SAMPLES_MAX - 1) * 5_000

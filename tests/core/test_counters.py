from __future__ import annotations

from streamer.core.counters import CLIENT_LEFT, Counters, Histogram, TransportCounters
from streamer.errors import SLOW


def test_a_number_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.observe(value)

    assert histogram.counts == [2, 1, 1]
    assert (histogram.count, histogram.sum) == (4, 102.0)


def test_a_negative_duration_counts_as_zero() -> None:
    histogram = Histogram((1.0,))

    histogram.observe(-3.0)

    assert (histogram.counts, histogram.sum) == ([1, 0], 0.0)


def test_open_connections_are_those_opened_and_not_ended() -> None:
    transport = TransportCounters("sse")

    transport.opened += 3
    transport.close(SLOW)
    transport.close(None)

    assert transport.open == 1
    assert transport.closes == {SLOW.reason: 1, CLIENT_LEFT: 1}


def test_a_publish_that_stored_nothing_counts_as_replayed() -> None:
    counters = Counters()

    counters.count_publish(3)
    counters.count_publish(0)

    assert counters.publishes == {"stored": 1, "replayed": 1}
    assert counters.entries_stored == 3

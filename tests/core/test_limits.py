"""Slots, and rates with the clock of the test."""

from __future__ import annotations

import pytest

from streamer.core.limits import RateLimiter, Slots, SlotsPerKey
from streamer.errors import Limit, LimitReached


def test_slots_beyond_the_capacity_are_refused() -> None:
    slots = Slots(2, Limit.CONNECTIONS_PER_NODE, retry_after_s=7)
    slots.acquire()
    slots.acquire()

    with pytest.raises(LimitReached) as refused:
        slots.acquire()

    assert refused.value.limit is Limit.CONNECTIONS_PER_NODE
    assert refused.value.retry_after_s == 7
    assert slots.in_use == 2


def test_a_released_slot_can_be_acquired() -> None:
    slots = Slots(1, Limit.CONNECTIONS_PER_NODE)

    slots.acquire()
    slots.release()
    slots.acquire()

    assert slots.in_use == 1


def test_keys_do_not_share_slots() -> None:
    slots = SlotsPerKey(1, Limit.REQUESTS_PER_PLAYER)
    slots.acquire("a")
    slots.acquire("b")

    with pytest.raises(LimitReached):
        slots.acquire("a")

    slots.release("a")
    slots.acquire("a")


def test_a_key_without_holders_is_forgotten() -> None:
    slots = SlotsPerKey(1, Limit.REQUESTS_PER_PLAYER)

    for number in range(1_000):
        slots.acquire(number)
        with pytest.raises(LimitReached):
            slots.acquire(number)
        slots.release(number)

    assert not slots._in_use


def test_a_burst_is_admitted_and_then_the_rate() -> None:
    rate = RateLimiter(10, burst=5)
    assert [rate.allow(0.0) for _ in range(6)] == [True] * 5 + [False]

    assert not rate.allow(0.09)
    assert rate.allow(0.11)
    assert not rate.allow(0.12)


@pytest.mark.parametrize("start_s", [0.0, 1e5, 1e7])
def test_the_rate_is_admitted_each_second(start_s: float) -> None:
    rate = RateLimiter(100, burst=1)

    passed = sum(rate.allow(start_s + ms / 1_000) for ms in range(10_000))

    assert 990 <= passed <= 1_001


def test_refused_events_do_not_count() -> None:
    rate = RateLimiter(1, burst=1)
    assert rate.allow(0.0)
    assert not any(rate.allow(0.5) for _ in range(100))

    assert rate.allow(1.0)


def test_idle_time_does_not_extend_the_burst() -> None:
    rate = RateLimiter(10, burst=3)
    rate.allow(0.0)

    assert [rate.allow(1e6) for _ in range(4)] == [True, True, True, False]

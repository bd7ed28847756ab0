"""Rate limits that several nodes share."""

from __future__ import annotations

import asyncio

import pytest

from streamer.errors import RateLimited
from streamer.model import App
from streamer.store.access import rates as module
from streamer.store.access.rates import Rates
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of

from ...clock import NOON, Clock

APP = App("app")

WINDOW_MS = 60_000
"""What is a second elsewhere: within a real one a busy machine makes few calls."""


@pytest.fixture(autouse=True)
def has_a_long_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_MS", WINDOW_MS)


@pytest.fixture
def rates(redis: RedisConnection, clock: Clock) -> Rates:
    return Rates(redis, clock_ms=lambda: clock.now_ms)


async def allowed(rates: Rates, calls: int, *, app: App = APP, name: str = "op") -> int:
    count = 0
    for _ in range(calls):
        try:
            await rates.count(app, name, per_s=30)
        except RateLimited:
            continue
        count += 1
    return count


async def test_no_window_has_more_calls_than_allowed(
    rates: Rates, clock: Clock
) -> None:
    times = []
    for step in range(400):
        clock.now_ms = NOON + WINDOW_MS // 100 * step
        times += [clock.now_ms] * await allowed(rates, 1)

    most = max(sum(start <= t < start + WINDOW_MS for t in times) for start in times)
    assert most == 30
    assert len(times) == 4 * 30


async def test_a_call_is_admitted_when_the_oldest_has_left_the_window(
    rates: Rates, clock: Clock
) -> None:
    assert await allowed(rates, 31) == 30

    clock.now_ms += WINDOW_MS - 999
    with pytest.raises(RateLimited) as refused:
        await rates.count(APP, "op", per_s=30)
    assert refused.value.retry_after_s == 1
    clock.now_ms += 999
    assert await allowed(rates, 40) == 30


async def test_refused_calls_do_not_count(rates: Rates, clock: Clock) -> None:
    for _ in range(10):
        await allowed(rates, 50)
        clock.now_ms += WINDOW_MS // 10

    assert await allowed(rates, 50) == 30


async def test_apps_and_operations_are_counted_separately(rates: Rates) -> None:
    assert await allowed(rates, 31) == 30
    assert await allowed(rates, 31, name="other") == 30
    assert await allowed(rates, 31, app=App("app2")) == 30


async def test_nodes_count_together(store_url: str) -> None:
    links = [redis_at(store_url) for _ in range(3)]
    let_through = await asyncio.gather(*(allowed(Rates(redis), 20) for redis in links))
    for redis in links:
        await redis.close()

    assert sum(let_through) == 30


async def test_a_clock_set_back_refuses_no_call(rates: Rates, clock: Clock) -> None:
    await allowed(rates, 30)
    clock.now_ms -= 3_600_000

    assert await allowed(rates, 31) == 30


async def test_the_key_expires_with_the_window(
    redis: RedisConnection, rates: Rates
) -> None:
    await allowed(rates, 3)

    assert 0 < await redis.call("PTTL", keys_of().rate(APP, "op")) <= WINDOW_MS

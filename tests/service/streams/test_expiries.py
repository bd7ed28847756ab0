"""Expiries reach the numbers of open streams. The store's clock is the test's."""

from __future__ import annotations

import pytest

from streamer.model import Entry
from streamer.store.logs.settings import LogSettings

from ...clock import Clock
from ...conftest import Until
from .conftest import World, number


@pytest.fixture
def settings(clock: Clock) -> LogSettings:
    return LogSettings(clock_us=clock)


@pytest.mark.parametrize("name", ["log", "news", "everyone"])
async def test_an_expiry_reaches_an_open_stream(
    world: World, clock: Clock, until: Until, name: str
) -> None:
    client = await world.follow()
    await world.publish(getattr(world, name))
    await world.publish_expiring(getattr(world, name), clock.now_ms + 1_000)
    await until(lambda: number(client) == 2)

    clock.now_ms += 1_000
    await world.catch_up._expiries.check_due()

    await until(lambda: number(client) == 1)
    assert await world.page() == 1


async def test_one_that_was_published_before_the_stream_was_opened_does(
    world: World, clock: Clock, until: Until
) -> None:
    await world.publish_expiring(world.news, clock.now_ms + 1_000)
    await world.publish_expiring(world.log, clock.now_ms + 2_000)
    client = await world.follow()
    assert number(client) == 2

    clock.now_ms += 1_000
    await world.catch_up._expiries.check_due()
    await until(lambda: number(client) == 1)
    clock.now_ms += 1_000
    await world.catch_up._expiries.check_due()

    await until(lambda: number(client) == 0)


async def test_one_that_another_request_has_ended_first_does(
    world: World, clock: Clock, until: Until
) -> None:
    client = await world.follow()
    await world.publish_expiring(world.news, clock.now_ms + 1_000)
    await until(lambda: number(client) == 1)

    clock.now_ms += 1_000
    assert await world.page() == 0
    await world.catch_up._expiries.check_due()

    await until(lambda: number(client) == 0)


async def test_an_expiry_that_the_store_does_not_know_yet_is_looked_at_again(
    world: World, clock: Clock, until: Until
) -> None:
    # As if another clock than the store's had said that it is due.
    client = await world.follow()
    await world.publish_expiring(world.news, clock.now_ms + 1_000)
    await until(lambda: number(client) == 1)
    expiries = world.catch_up._expiries
    expiries._next_ms.clear()
    expiries.note(world.news, clock.now_ms)

    await expiries.check_due()
    assert expiries._next_ms == {world.news: clock.now_ms + 1_000}

    clock.now_ms += 1_000
    await expiries.check_due()
    await until(lambda: number(client) == 0)


async def test_a_log_that_nobody_follows_is_not_looked_at(
    world: World, clock: Clock
) -> None:
    expiries = world.catch_up._expiries

    expiries.note(world.news, clock.now_ms)

    assert not expiries._due


@pytest.mark.parametrize(
    "fragment",
    [b'"expires_at":"soon"}', b'"expires_at":"', b'"data":"\\"expires_at\\":\\"x"}'],
)
async def test_content_that_looks_like_an_expiry_is_no_time(
    world: World, fragment: bytes
) -> None:
    await world.follow()

    entry = Entry(1, 1, 1, 1, fragment)
    world.catch_up._expiries.note_entry(world.log, entry)

    assert not world.catch_up._expiries._due


async def test_times_of_logs_that_were_left_are_forgotten(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.follow()
    expiries = world.catch_up._expiries
    later_ms = clock.now_ms + 1_000_000
    for n in range(20):
        expiries.note(world.log, later_ms - n)
    expiries.note(world.news, later_ms)
    await world.close()
    expiries._forget_at = 10

    await expiries.check_due()

    assert not expiries._due
    assert not expiries._next_ms

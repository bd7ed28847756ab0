"""The index of sandboxes, and the removal of those that nobody can use any more."""

from __future__ import annotations

import pytest

from streamer.model import App, Log, Player
from streamer.store.access.sandboxes import REMOVED_MAX, Sandboxes
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.mutes import Mutes

APP = App("demo")


def logs_of(name: str) -> list[Log]:
    return [Log(APP, Player(name))]


@pytest.fixture
def sandboxes(redis: RedisConnection) -> Sandboxes:
    return Sandboxes(redis, APP, logs_of)


async def test_it_knows_when_one_was_opened(sandboxes: Sandboxes) -> None:
    await sandboxes.add("one", now_s=100.7)

    assert await sandboxes.opened_s("one") == 100
    assert await sandboxes.opened_s("other") is None


async def test_only_those_that_are_old_are_removed(
    sandboxes: Sandboxes, redis: RedisConnection
) -> None:
    mutes = Mutes(redis)
    for name, opened_s in (("old", 100), ("new", 200)):
        await sandboxes.add(name, now_s=opened_s)
        await mutes.mute(Log(APP, Player(name)), "a type")

    await sandboxes.remove(before_s=200)

    assert await sandboxes.opened_s("old") is None
    assert await sandboxes.opened_s("new") == 200
    assert await mutes.of(Log(APP, Player("old"))) == []
    assert await mutes.of(Log(APP, Player("new"))) == ["a type"]


async def test_one_call_removes_a_bounded_number(sandboxes: Sandboxes) -> None:
    names = [f"{i:03}" for i in range(REMOVED_MAX + 1)]
    for name in names:
        await sandboxes.add(name, now_s=100)

    await sandboxes.remove(before_s=200)
    left = [name for name in names if await sandboxes.opened_s(name) is not None]

    assert left == names[REMOVED_MAX:]

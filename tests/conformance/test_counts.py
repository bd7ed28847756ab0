"""
The number that a simple client shows is that of the page, whatever happened.

The client is written from PROTOCOL.md alone. The servers make no position checks, so
that a number which is not corrected by itself stays wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from ..client.conftest import Running
from .world import World

STEPS_NIGHTLY = 10_000

MakeWorld = Callable[[int], World]


@pytest.fixture
async def other_node(server: Running, store_url: str) -> AsyncIterator[Running]:
    """Yield a second node of the same store."""
    other = server.sibling(store_url)
    await other.start()
    yield other
    await other.stop()


@pytest.fixture
def make_world(server: Running, other_node: Running) -> MakeWorld:
    def make(seed: int) -> World:
        urls = [server.url, other_node.url]
        return World(
            urls,
            server.key,
            lambda player: server.token(player, topics=("news",)),
            seed,
        )

    return make


async def run(world: World, steps: int) -> None:
    """Take steps in bursts; after each, wait until all numbers are right."""
    await world.add_player("ann")
    await world.add_player("bob")
    await world.add_player("cid", topics=("news",))
    while len(world.done) < steps:
        await world.burst(world.random.randint(1, 12))
        await world.settle()
        if world.random.random() < 0.2:
            # What is right must not become wrong by a late correction.
            await asyncio.sleep(0.3)
            await world.settle()


@pytest.mark.parametrize("seed", [1, 2])
async def test_numbers_are_right_after_whatever_happened(
    make_world: MakeWorld, seed: int
) -> None:
    async with make_world(seed) as world:
        await run(world, 100)


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
async def test_numbers_are_right_after_ten_thousand_steps(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    async with make_world(20_261_128) as world:
        await run(world, STEPS_NIGHTLY)
    times = sorted(world.settled_in_s)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{len(world.done)} steps, {len(times)} times quiet; right after "
            f"{times[len(times) // 2]:.2f} s (median), {times[-1]:.2f} s (maximum)"
        )

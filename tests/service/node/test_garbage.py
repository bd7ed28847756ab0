"""When garbage is collected: which objects the collector visits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from streamer.service.node import garbage as collecting
from streamer.service.node.garbage import BLOCKS_PER_CONNECTION, Garbage


class Cycle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


class Connections:
    def __init__(self) -> None:
        self.open = 0

    def __call__(self) -> int:
        return self.open


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def garbage(connections: Connections) -> Iterator[Garbage]:
    garbage = Garbage(connections)
    garbage.begin()
    yield garbage
    garbage.end()


@pytest.mark.usefixtures("garbage")
def test_what_survives_the_second_generation_is_visited_no_more() -> None:
    kept = [Cycle() for _ in range(1_000)]
    gc.collect(1)

    assert not any(isinstance(it, Cycle) for it in gc.get_objects())
    assert len(kept) == 1_000


@pytest.mark.usefixtures("garbage")
def test_a_young_cycle_is_collected_as_usual() -> None:
    cycle = weakref.ref(Cycle())

    gc.collect(1)

    assert cycle() is None


@pytest.mark.usefixtures("garbage")
def test_a_frozen_object_is_freed_when_nothing_refers_to_it() -> None:
    one = [Cycle()]
    gc.collect(1)
    freed = weakref.ref(one[0])
    del one[0].itself

    one.clear()

    assert freed() is None


def test_a_frozen_cycle_is_collected_by_a_full_collection(garbage: Garbage) -> None:
    one = Cycle()
    gc.collect(1)
    freed = weakref.ref(one)
    del one
    gc.collect()
    assert freed() is not None

    garbage.collect_all()

    assert freed() is None
    assert not gc.get_objects(2)


def test_a_full_collection_is_due_when_connections_explain_too_little(
    garbage: Garbage, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "UNEXPLAINED_MAX", 10_000)
    connections.open = 1
    kept = [[] for _ in range(5_000)]  # type: ignore[var-annotated]
    gc.collect(1)
    assert not garbage.is_due

    kept += [[] for _ in range(6_000)]
    gc.collect(1)
    assert garbage.is_due
    connections.open = 10_000 // BLOCKS_PER_CONNECTION
    assert not garbage.is_due


def test_less_is_enough_while_nobody_is_connected(
    garbage: Garbage, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "UNEXPLAINED_QUIET_MAX", 1_000)
    kept = [[] for _ in range(2_000)]  # type: ignore[var-annotated]
    gc.collect(1)

    assert garbage.is_due
    connections.open = 1
    assert not garbage.is_due
    assert len(kept) == 2_000


def test_what_the_last_connections_leave_behind_has_time_to_go(
    garbage: Garbage, connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "UNEXPLAINED_QUIET_MAX", 1_000)
    kept = [[] for _ in range(2_000)]  # type: ignore[var-annotated]
    gc.collect(1)
    connections.open = 1
    assert not garbage.look()

    connections.open = 0

    assert [garbage.look(), garbage.look()] == [False, True]
    assert len(kept) == 2_000


def test_what_a_full_collection_leaves_is_explained(
    garbage: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "UNEXPLAINED_QUIET_MAX", 1_000)
    kept = [[] for _ in range(2_000)]  # type: ignore[var-annotated]
    gc.collect(1)
    assert garbage.is_due

    garbage.collect_all()

    assert not garbage.is_due
    assert len(kept) == 2_000


async def test_garbage_is_collected_when_it_is_due_and_all_is_as_before_in_the_end(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "LOOK_S", 0.001)
    monkeypatch.setattr(collecting, "UNEXPLAINED_QUIET_MAX", 1_000)
    before = gc.get_threshold(), len(gc.callbacks)
    freed = asyncio.Event()

    async with Garbage(connections).collecting():
        cycles = [Cycle() for _ in range(2_000)]
        weakref.finalize(cycles[0], freed.set)
        gc.collect(1)
        del cycles
        await freed.wait()

    assert (gc.get_threshold(), len(gc.callbacks)) == before


async def test_the_policy_leaves_no_task_behind(connections: Connections) -> None:
    before = asyncio.all_tasks()

    async with Garbage(connections).collecting():
        assert asyncio.all_tasks() != before

    assert asyncio.all_tasks() == before

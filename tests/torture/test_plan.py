"""A seed determines the plan, and a plan has every kind of fault before one again."""

from __future__ import annotations

import pytest

from .plan import ONE_STORE, WITH_REPLICA, chance, make_plan
from .topology import TOPOLOGIES


def test_a_seed_determines_the_plan() -> None:
    plans = [
        make_plan(seed, ONE_STORE, nodes=2, rounds=3, round_s=9.0) for seed in (5, 5, 6)
    ]

    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_choices_of_one_part_do_not_depend_on_another() -> None:
    alone = chance(5, "player", "ann").random()
    chance(5, "player", "ben").random()

    assert chance(5, "player", "ann").random() == alone


def test_every_kind_of_fault_comes_before_one_comes_again() -> None:
    plan = make_plan(5, WITH_REPLICA, nodes=2, rounds=20, round_s=9.0)

    kinds = [fault.kind for faults in plan.rounds for fault in faults]

    assert sorted(kinds[: len(WITH_REPLICA)]) == sorted(WITH_REPLICA)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_topology_has_a_method_for_each_of_its_faults(name: str) -> None:
    topology = TOPOLOGIES[name]

    assert all(callable(getattr(topology, kind)) for kind in topology.KINDS)

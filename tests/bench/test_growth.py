"""Verdicts on growth: what a cost may be, and what it is compared with."""

from __future__ import annotations

import pytest

from bench import nodes, workers
from bench.run.growth import CLUSTER, Parts, conclude, judge, measured
from streamer.bench.scenario import Measurements, Scenario

KEY = "publish_node_us"


def runs(
    first: list[float], again: list[float], more: list[float]
) -> dict[str, list[Measurements]]:
    """Return rounds in which only publishing was measured."""
    columns = {"one": first, "one again": again, "two": more}
    return {name: [{KEY: us} for us in values] for name, values in columns.items()}


@pytest.mark.parametrize(
    ("first", "again", "more", "ratio", "is_linear"),
    [
        ([100, 100, 100], [100, 100, 100], [105, 110, 120], 1.10, True),
        ([100, 100, 100], [100, 100, 100], [105, 111, 120], 1.11, False),
        # The control differs by 20 %, so nothing below that is seen.
        ([100, 100, 100], [101, 120, 99], [119, 119, 119], 1.19, True),
        ([100, 100, 100], [101, 120, 99], [121, 121, 121], 1.21, False),
        ([100, 100, 100], [101, 80, 99], [119, 119, 119], 1.19, True),
        # A round in which everything was dear is compared within itself.
        ([100, 300, 100], [100, 300, 100], [105, 315, 105], 1.05, True),
        ([100, 100, 100], [100, 100, 100], [60, 60, 60], 0.60, True),
    ],
)
def test_a_cost_may_rise_by_10_percent_or_what_the_control_differs_by(
    first: list[float],
    again: list[float],
    more: list[float],
    ratio: float,
    is_linear: bool,
) -> None:
    (verdict,) = judge(runs(first, again, more), CLUSTER)

    assert verdict.topology == "two"
    assert verdict.ratio == pytest.approx(ratio)
    assert verdict.is_linear is is_linear


def test_what_was_not_measured_has_no_verdict() -> None:
    assert judge({"one": [{}], "one again": [{}], "two": [{}]}, CLUSTER) == []
    some = runs([100], [100], [100])
    del some["two"][0][KEY]
    assert judge(some, CLUSTER) == []


def test_each_topology_and_operation_has_a_verdict() -> None:
    full: Measurements = {f"{what}_{part}_us": 1.0 for what, part in measured(CLUSTER)}
    names = ("one", "one again", "two", "three")

    verdicts = judge({name: [dict(full)] for name in names}, CLUSTER)

    assert len(verdicts) == 2 * len(measured(CLUSTER))
    assert {verdict.topology for verdict in verdicts} == {"two", "three"}


def test_a_part_is_judged_by_its_own_name() -> None:
    parts = Parts("worker", "store", "supervisor")
    run: Measurements = {f"{what}_{part}_us": 1.0 for what, part in measured(parts)}
    rounds = {name: [dict(run)] for name in ("one", "one again", "two")}

    assert {verdict.part for verdict in judge(rounds, parts)} == {"worker", "store"}
    assert judge(rounds, CLUSTER) == []


def test_what_servers_use_at_rest_is_a_figure() -> None:
    def keys(scenario: Scenario) -> set[str]:
        return {figure.key for figure in scenario.figures}

    assert {"idle_node", "idle_shard", "rss_node", "private_node"} < keys(
        nodes.SCENARIO
    )
    assert not keys(nodes.SCENARIO) & {"rss_shard", "fullest"}
    assert {
        *("idle_worker", "idle_store", "idle_supervisor"),
        *("rss_worker", "rss_supervisor", "fullest"),
    } < keys(workers.SCENARIO)


def test_the_table_has_every_process_and_says_what_was_missed() -> None:
    rounds = runs([100], [100], [200])
    rounds["two"][0] |= {"publish_node_1": 150.0, "publish_node_2": 50.0}
    rounds["one"][0] |= {"publish_node_1": 100.0}

    heading, (row,) = conclude(rounds, CLUSTER)

    cells = dict(zip(heading, row, strict=True))
    assert cells["by process"] == "150.0 + 50.0"
    # One process in two has three quarters of the work: 1 s / 150 µs.
    assert cells["a second, by CPU of the busiest"] == "6,667"
    assert cells["ratio"] == "2.00 x"
    assert cells["linear"] == "MISS"


def test_the_busiest_process_is_that_of_each_round() -> None:
    rounds = runs([100, 100, 100], [100, 100, 100], [100, 100, 100])
    for run, busy in zip(rounds["two"], (1, 2, 3), strict=True):
        run |= {f"publish_node_{n}": 80.0 if n == busy else 10.0 for n in (1, 2, 3)}

    heading, (row,) = conclude(rounds, CLUSTER)

    cells = dict(zip(heading, row, strict=True))
    assert cells["by process"] == "80.0 + 10.0 + 10.0"
    assert cells["a second, by CPU of the busiest"] == "12,500"

"""The capacity model: its arithmetic, its inputs, and the page that has its tables."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from bench import capacity
from bench.run.capacity_model import (
    GIB,
    Costs,
    Machines,
    Rates,
    costs_of,
    figure,
    inputs,
    plan,
    predict_cpu,
    predict_memory,
)
from bench.run.fleet import InUse, Phase

FREE = Costs(**{field.name: 0.0 for field in dataclasses.fields(Costs)})
"""Nothing costs anything."""

QUIET = Rates(
    players=0,
    kept=0,
    notifications_per_hour=0,
    broadcasts_per_hour=0,
    connects_per_hour=0,
    back_within_s=100,
)

PAGE = """\

## Opening 10 connections over ws, 64 at a time

|  | CPU per connect, µs | RSS, KiB |
|---|---:|---:|
| streamer | 1,876 ± 9% | 3.6 ± 1% |
| nginx + nchan | 40 ± 17% | 11.4 ± 0% |

## Another table

|  | CPU per connect, µs |
|---|---:|
| nginx + nchan | 40 |
"""


def costs(**values: float) -> Costs:
    return dataclasses.replace(FREE, **values)


# -- what a deployment needs


def test_a_deployment_without_load_is_one_worker_on_a_node_with_a_spare() -> None:
    needed = plan(10_000, FREE, QUIET, Machines())

    assert (needed.workers, needed.nodes, needed.shards) == (1, 2, 1)


@pytest.mark.parametrize(
    ("cost", "rate", "cores"),
    [
        # 36,000 connections, so an operation an hour of each is 10 a second in all.
        ({"idle_us": 100}, {}, 3.6),
        ({"connect_us": 1e5}, {"connects_per_hour": 2}, 2.0),
        ({"publish_us": 1e5}, {"notifications_per_hour": 3}, 3.0),
        ({"delivery_us": 1e5}, {"notifications_per_hour": 3}, 3.0),
        ({"broadcast_us": 1e5}, {"broadcasts_per_hour": 4}, 4.0),
    ],
)
def test_rates_take_workers_by_their_cost(
    cost: dict[str, float], rate: dict[str, float], cores: float
) -> None:
    needed = plan(
        36_000,
        costs(**cost),
        dataclasses.replace(QUIET, **rate),
        Machines(busy=0.5),
    )

    assert needed.cpu.nodes == pytest.approx(cores)
    assert needed.workers == math.ceil(cores / 0.5)
    assert needed.workers_decided_by == "rates"


@pytest.mark.parametrize(
    ("cost", "rate", "cores"),
    [
        ({"idle_store_us": 100}, {}, 3.6),
        ({"connect_store_us": 1e5}, {"connects_per_hour": 2}, 2.0),
        ({"publish_store_us": 1e5}, {"notifications_per_hour": 3}, 3.0),
    ],
)
def test_rates_take_shards_by_their_cost(
    cost: dict[str, float], rate: dict[str, float], cores: float
) -> None:
    needed = plan(
        36_000, costs(**cost), dataclasses.replace(QUIET, **rate), Machines(busy=0.5)
    )

    assert needed.cpu.shards == pytest.approx(cores)
    assert needed.shards == math.ceil(cores / 0.5)
    assert needed.shards_decided_by == "rates"


def test_idle_workers_take_time_of_every_shard() -> None:
    cost = costs(worker_idle_store_us=10_000, idle_store_us=100)
    machines = Machines(busy=0.5, connections_per_worker=1_800)

    needed = plan(36_000, cost, QUIET, machines)

    # 20 workers take 0.2 of each, so 3.6 cores are spread over shards that have 0.3.
    assert (needed.workers, needed.shards) == (20, 12)
    assert needed.cpu.shards == pytest.approx(3.6 + 20 * 0.01 * 12)
    with pytest.raises(ValueError, match="72 workers without load keep a shard busy"):
        plan(36_000 * 10, cost, QUIET, Machines(connections_per_worker=5_000))


def test_a_storm_takes_workers_and_shards_for_its_time() -> None:
    needed = plan(
        100_000,
        costs(storm_us=1_000, storm_store_us=450),
        QUIET,
        Machines(storm_busy=0.5),
    )

    # 100 s of CPU within 100 s of which one half is used.
    assert (needed.workers, needed.workers_decided_by) == (2, "storm")
    # 45 s of CPU take one shard 90 s at one half.
    assert needed.shards == 1
    assert needed.back_s == pytest.approx(100)


def test_open_files_limit_the_connections_of_a_worker() -> None:
    needed = plan(100_001, FREE, QUIET, Machines(connections_per_worker=50_000))

    assert (needed.workers, needed.workers_decided_by) == (3, "open files")


def test_memory_of_a_node_limits_its_connections() -> None:
    machines = Machines(node_cores=2, node_gib=4, full=0.5)
    # A worker has 1 GiB; a quarter of it is its own.
    cost = costs(
        worker_bytes=GIB / 4, connection_bytes=GIB / 2_000, socket_bytes=GIB / 2_000
    )

    needed = plan(3_000, cost, QUIET, machines)

    assert (needed.workers, needed.workers_decided_by) == (4, "memory")
    assert needed.nodes == 2 + machines.spare_nodes
    assert needed.memory.workers == pytest.approx(GIB * 4 / 4 + GIB * 1.5)
    assert needed.memory.kernel == pytest.approx(GIB * 1.5)


def test_memory_of_a_store_limits_what_is_kept() -> None:
    rates = dataclasses.replace(QUIET, players=10, kept=20)
    cost = costs(lease_bytes=1_000, player_bytes=500, notification_bytes=100)

    needed = plan(1_000_000, cost, rates, Machines(store_gib=10, full=0.5))

    # 1 GB of leases, and 10 million players with 2,500 bytes each.
    assert needed.memory.shards == pytest.approx(26e9)
    assert needed.shards == math.ceil(26e9 / (5 * GIB))
    assert needed.shards_decided_by == "memory"


def test_a_cluster_has_at_least_three_primaries() -> None:
    needed = plan(36_000, costs(idle_store_us=100), QUIET, Machines(busy=2))

    assert needed.shards_for["rates"] == pytest.approx(1.8)
    assert needed.shards == 3


def test_the_network_is_that_of_all_that_is_sent() -> None:
    rates = dataclasses.replace(
        QUIET, notifications_per_hour=1, broadcasts_per_hour=2, connects_per_hour=3
    )
    cost = costs(idle_wire_bytes=10, delivery_wire_bytes=400, connect_wire_bytes=1_000)

    needed = plan(36_000, cost, rates, Machines())

    sent = 36_000 * 10 + 30 * 400 + 30 * 1_000
    assert needed.sent_mbit_s == pytest.approx(sent * 8 / 1e6)


def test_a_broadcast_is_written_by_all_workers_at_once() -> None:
    machines = Machines(connections_per_worker=10_000)
    cost = costs(broadcast_us=10, delivery_wire_bytes=500)

    needed = plan(100_000, cost, QUIET, machines)

    assert needed.workers == 10
    assert needed.broadcast_s == pytest.approx(0.1)
    assert needed.broadcast_mbit_s == pytest.approx(500 * 100_000 * 8 / 0.1 / 1e6)


def test_money_is_for_machines_with_spares_and_replicas_and_for_what_is_sent() -> None:
    machines = Machines(
        node_cores=4,
        node_gib=8,
        store_cores=2,
        store_gib=16,
        replicas=2,
        spare_nodes=1,
        core_hour=0.1,
        gib_hour=0.01,
        sent_gib=0.5,
    )
    cost = costs(idle_wire_bytes=GIB / 3600 / 1_000)

    needed = plan(1_000, cost, QUIET, machines)

    nodes = 2 * (4 * 0.1 + 8 * 0.01)
    stores = 3 * (2 * 0.1 + 16 * 0.01)
    # One GiB an hour.
    assert needed.dollars == pytest.approx(730 * (nodes + stores + 0.5))


def test_more_connections_never_take_less() -> None:
    found = costs_of(inputs(capacity.RESULTS.read_text(), measured()))
    plans = [plan(2**power, found, Rates(), Machines()) for power in range(10, 24)]

    for name in ("workers", "nodes", "shards", "dollars", "sent_mbit_s"):
        values = [getattr(each, name) for each in plans]
        assert values == sorted(values), name


# -- predictions


def test_a_prediction_is_the_sum_of_what_was_done() -> None:
    cost = costs(
        worker_bytes=100,
        connection_bytes=3,
        socket_bytes=2,
        lease_bytes=1,
        notification_bytes=7,
        worker_idle_us=1_000,
        idle_us=2,
        idle_store_us=1,
        connect_us=900,
        connect_store_us=200,
    )

    cpu = predict_cpu(cost, seconds=10, workers=2, connections=500, connects=100)
    memory = predict_memory(cost, workers=2, connections=500, notifications=10)

    assert cpu.nodes == pytest.approx((2_000 * 10 + 1_000 * 10 + 90_000) / 1e6)
    assert cpu.shards == pytest.approx((500 * 10 + 20_000) / 1e6)
    assert memory == (1_700, 1_000, 570)


def a_run(workers: int, cost: Costs, connections: int = 1_000) -> capacity.Run:
    """Return a run in which everything costs what it should."""

    def phase(done: float, seconds: float, held: float, **what: Any) -> Phase:
        cpu = predict_cpu(
            cost, seconds=seconds, workers=workers, connections=held, **what
        )
        return Phase(done, seconds, cpu.nodes, cpu.shards, 0)

    n = connections
    each = {"workers": workers, "supervisors": int(workers > 1)}
    empty = predict_memory(cost, **each, connections=0)
    full = predict_memory(cost, **each, connections=n)
    return capacity.Run(
        workers,
        1,
        n,
        {
            "nothing": phase(0, 3, 0),
            "connect": phase(n, 5, n / 2, connects=n),
            "idle": phase(n, 20, n),
            "delivery": phase(100, 3, n, publishes=100, deliveries=100),
            "broadcast": phase(6 * n, 3, n, broadcast_deliveries=6 * n),
            "storm": phase(n, 5, n / 2, storms=n),
        },
        InUse(round(empty.workers), round(empty.shards), round(empty.kernel)),
        InUse(round(full.workers), round(full.shards), round(full.kernel)),
    )


COST = costs(
    worker_bytes=70e6,
    supervisor_bytes=50e6,
    connection_bytes=4_000,
    socket_bytes=3_500,
    lease_bytes=600,
    worker_idle_us=9_000,
    worker_idle_store_us=1_500,
    idle_us=2,
    idle_store_us=1,
    connect_us=900,
    connect_store_us=200,
    storm_us=1_200,
    storm_store_us=250,
    publish_us=400,
    publish_store_us=100,
    broadcast_us=10,
)


def test_the_costs_of_a_run_are_found_again() -> None:
    others = costs(supervisor_bytes=50e6, socket_bytes=3_500)
    found = capacity.costs_of_run(a_run(1, COST), others)

    for field in dataclasses.fields(Costs):
        want = getattr(COST, field.name)
        assert getattr(found, field.name) == pytest.approx(want), field.name


def test_a_larger_run_is_compared_with_the_costs_of_a_small_one() -> None:
    others = costs(supervisor_bytes=50e6, socket_bytes=3_500)
    found = capacity.costs_of_run(a_run(1, COST), others)
    dearer = dataclasses.replace(COST, connect_us=2_000)

    same = capacity.compare(a_run(4, COST, 50_000), found)
    other = capacity.compare(a_run(4, dearer, 50_000), found)

    assert {round(each.ratio, 6) for each in same} == {1.0}
    off = {each.what for each in other if abs(each.ratio - 1) > 1e-6}
    assert off == {"CPU, connect"}


# -- inputs and the page


def measured() -> dict[str, object]:
    found: dict[str, object] = json.loads(capacity.MEASURED.read_text())
    return found


def test_a_figure_is_read_from_the_table_of_its_heading() -> None:
    assert figure(PAGE, "Opening 10 connections", "CPU per connect, µs") == 1_876
    assert figure(PAGE, "Opening 10 connections", "RSS, KiB") == 3.6


@pytest.mark.parametrize(
    ("heading", "column"),
    [
        ("Opening 11", "RSS, KiB"),
        ("Opening 10 connections", "RSS"),
        ("Another table", "CPU per connect, µs"),
    ],
)
def test_a_figure_that_is_missing_is_named(heading: str, column: str) -> None:
    with pytest.raises(KeyError, match=f"{column}.*{heading}"):
        figure("\n" + PAGE, heading, column)


def test_every_cost_has_a_source() -> None:
    found = inputs(capacity.RESULTS.read_text(), measured())

    assert [each.name for each in found] == [
        field.name for field in dataclasses.fields(Costs)
    ]
    assert all(each.value > 0 and each.source for each in found)


def test_the_page_has_the_tables_of_the_model() -> None:
    page = capacity.DOCS.read_text()

    # When this fails: python -m bench.capacity --write
    assert capacity.placed(page, capacity.tables(Rates(), Machines())) == page


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(KeyError, match="'costs'"):
        capacity.placed("<!-- plans -->\n<!-- /plans -->", {"costs": "| a |"})

"""
A capacity model: from measured costs to nodes, shards, memory, network and money.

``python -m bench.capacity`` prints what a deployment of 10 thousand to 10 million
connections needs, at the rates that its options state. ``--write`` puts the tables into
``docs/capacity.md``. The inputs are figures of ``RESULTS.md``, and those of
``capacity.json``, which ``--measure`` measures on this machine in some minutes.

``--check`` measures the costs with one worker, and predicts with them what 1, 2 and 4
workers use. ``--hold N`` opens N idle connections, and predicts their memory and CPU.
Both print the prediction beside the measurement.

The model is arithmetic: costs per operation times rates. It holds as long as the cost
of an operation stays the same with more shards, nodes and workers, which
`bench.shards`, `bench.nodes` and `bench.workers` measure.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from streamer.bench.machine import machine

from .run.capacity_model import (
    GIB,
    PACKET_BYTES,
    US,
    Costs,
    Input,
    Machines,
    Plan,
    Rates,
    costs_of,
    inputs,
    plan,
    predict_cpu,
    predict_memory,
)
from .run.fleet import Fleet, InUse, Phase, socket_bytes

__all__ = ["SIZES", "compare", "costs_of_run", "placed", "tables"]

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = ROOT / "bench" / "RESULTS.md"
MEASURED: Final = ROOT / "bench" / "capacity.json"
DOCS: Final = ROOT / "docs" / "capacity.md"

SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
IDLE_PACKETS_PER_S: Final = 2 / 15
"""An idle connection gets its cursor or a ping every 15 s, and acknowledges it."""

PUBLISHES_PER_S: Final = 40.0
BROADCASTS_PER_S: Final = 2.0
KEPT: Final = 25
SOCKETS_MIN: Final = 10_000
"""Fewer sockets are hidden by those of what else the machine does."""
IDLE_S: Final = 20.0
"""Longer than a reader waits for the check of its position, and for a ping."""


class Run(NamedTuple):
    """What a node with so many workers has used, phase by phase."""

    workers: int
    nodes: int
    connections: int
    phases: dict[str, Phase]
    """By operation: nothing, connect, idle, delivery, broadcast, storm."""
    empty: InUse
    """Memory before, and with the idle connections."""
    full: InUse


def measure_run(
    workers: int, connections: int, *, seconds: float, say: Any, loaders: int = 1
) -> Run:
    """Connect, hold, publish, deliver, cut off; at rates in proportion to workers."""
    with Fleet(workers, connections, loaders=loaders, say=say) as fleet:
        phases = {"nothing": fleet.idle(seconds)}
        empty = fleet.memory()
        phases["connect"] = fleet.connect()
        phases["idle"] = fleet.idle(IDLE_S)
        full = fleet.memory()
        rate = PUBLISHES_PER_S * workers
        phases["delivery"] = fleet.deliver(rate, seconds)
        phases["broadcast"] = fleet.broadcast(BROADCASTS_PER_S, seconds)
        phases["storm"] = fleet.reconnect()
        return Run(workers, 1, connections, phases, empty, full)


def costs_of_run(run: Run, others: Costs) -> Costs:
    """
    Return the costs that a run with one worker shows.

    What it does not show is taken from `others`.
    """
    phases, n = run.phases, run.connections
    nothing, idle = phases["nothing"], phases["idle"]
    worker_us = nothing.node_cpu_s / nothing.seconds / run.workers / US
    idle_us = idle.node_cpu_s / idle.seconds / US - worker_us * run.workers
    worker_store_us = nothing.store_cpu_s / nothing.seconds / run.workers / US
    idle_store_us = idle.store_cpu_s / idle.seconds / US - worker_store_us * run.workers

    def each(name: str) -> tuple[float, float]:
        """Return what an operation costs beyond idling, of node and store, in µs."""
        phase = phases[name]
        # While they connect, half of the connections are open on average.
        held = n / 2 if name in ("connect", "storm") else n
        node = phase.node_cpu_s / US - phase.seconds * (
            worker_us * run.workers + idle_us / n * held
        )
        store = phase.store_cpu_s / US - phase.seconds * (
            worker_store_us * run.workers + idle_store_us / n * held
        )
        return node / phase.done, store / phase.done

    connect, storm, delivery = each("connect"), each("storm"), each("delivery")
    return dataclasses.replace(
        others,
        worker_bytes=run.empty.node / run.workers,
        connection_bytes=(run.full.node - run.empty.node) / n,
        lease_bytes=(run.full.store - run.empty.store) / n,
        worker_idle_us=worker_us,
        worker_idle_store_us=worker_store_us,
        idle_us=idle_us / n,
        idle_store_us=idle_store_us / n,
        connect_us=connect[0],
        connect_store_us=connect[1],
        storm_us=storm[0],
        storm_store_us=storm[1],
        # Publishing and delivering were measured together.
        publish_us=delivery[0],
        publish_store_us=delivery[1],
        delivery_us=0.0,
        broadcast_us=each("broadcast")[0],
    )


class Comparison(NamedTuple):
    """A prediction beside a measurement."""

    what: str
    predicted: float
    measured: float
    unit: str

    @property
    def ratio(self) -> float:
        return self.measured / self.predicted if self.predicted else math.nan


def compare(run: Run, costs: Costs) -> list[Comparison]:
    """Compare what a run has used with what its operations should."""
    found = []
    memory = predict_memory(
        costs,
        workers=run.workers,
        supervisors=run.nodes if run.workers > run.nodes else 0,
        connections=run.connections,
    )
    found.append(Comparison("memory of the node", memory.workers, run.full.node, "B"))
    if run.connections >= SOCKETS_MIN:
        grown = run.full.kernel - run.empty.kernel
        found.append(Comparison("memory of its sockets", memory.kernel, grown, "B"))
    grown = run.full.store - run.empty.store
    found.append(Comparison("memory of the store", memory.shards, grown, "B"))
    for name, phase in run.phases.items():
        done: dict[str, Any] = {
            "connect": {"connects": phase.done},
            "storm": {"storms": phase.done},
            "delivery": {"publishes": phase.done, "deliveries": phase.done},
            "broadcast": {"broadcast_deliveries": phase.done},
        }.get(name, {})
        held: float = run.connections
        if name == "nothing":
            held = 0
        elif name in ("connect", "storm"):
            held /= 2  # On average, while they connect.
        cpu = predict_cpu(
            costs,
            seconds=phase.seconds,
            workers=run.workers,
            connections=held,
            **done,
        )
        found.append(Comparison(f"CPU, {name}", cpu.nodes, phase.node_cpu_s, "s"))
        if name in ("connect", "delivery", "storm"):
            store = Comparison(
                f"CPU of the store, {name}", cpu.shards, phase.store_cpu_s, "s"
            )
            found.append(store)
    return found


def measure_costs(connections: int, seconds: float, say: Any) -> dict[str, Any]:
    """Return the costs that ``RESULTS.md`` does not have, and how they were found."""
    n = connections
    with Fleet(1, n, say=say) as fleet:
        nothing = fleet.idle(seconds)
        empty = fleet.memory()
        fleet.connect()
        idle = fleet.idle(IDLE_S)
        full = fleet.memory()
        before = fleet.target.store_bytes()
        fleet.store(KEPT)
        many = fleet.target.store_bytes()
        fleet.store(KEPT)
        more = fleet.target.store_bytes()
        delivery = fleet.deliver(PUBLISHES_PER_S, seconds)
    with Fleet(2, 0, say=say) as fleet:
        pair = fleet.memory()
    # The first notifications came with what the store keeps of a player, the later
    # ones alone.
    notification = (more - many) / n / KEPT
    return {
        "when": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(["python", "-m", "bench.capacity", "--measure"]),
        "connections": n,
        "costs": {
            "worker_bytes": empty.node,
            "supervisor_bytes": pair.node - 2 * empty.node,
            "socket_bytes": socket_bytes(),
            "lease_bytes": (full.store - empty.store) / n,
            "player_bytes": (many - before) / n - notification * KEPT,
            "notification_bytes": notification,
            "worker_idle_store_us": nothing.store_cpu_s / nothing.seconds / US,
            "worker_idle_us": nothing.node_cpu_s / nothing.seconds / US,
            "idle_store_us": (
                idle.store_cpu_s / idle.seconds - nothing.store_cpu_s / nothing.seconds
            )
            / n
            / US,
            "idle_wire_bytes": (
                idle.received / idle.seconds / n + IDLE_PACKETS_PER_S * PACKET_BYTES
            ),
            "delivery_wire_bytes": delivery.received / delivery.done + PACKET_BYTES,
        },
    }


_WORDS: Final = {
    "worker_bytes": ("a worker without connections", "MiB", 2**20),
    "supervisor_bytes": ("the supervisor of a node with several", "MiB", 2**20),
    "connection_bytes": ("an idle connection in its worker", "KiB", 1024),
    "socket_bytes": ("its socket in the kernel", "KiB", 1024),
    "lease_bytes": ("the same in the store", "B", 1),
    "player_bytes": ("a player in the store", "B", 1),
    "notification_bytes": ("a notification in the store", "B", 1),
    "worker_idle_us": ("a worker without connections, a second", "µs", 1),
    "worker_idle_store_us": ("the same in each shard", "µs", 1),
    "idle_us": ("an idle connection, a second", "µs", 1),
    "idle_store_us": ("the same in the store", "µs", 1),
    "connect_us": ("opening a stream", "µs", 1),
    "connect_store_us": ("the same in the store", "µs", 1),
    "storm_us": ("coming back after all were cut off", "µs", 1),
    "storm_store_us": ("the same in the store", "µs", 1),
    "publish_us": ("storing a notification for one player", "µs", 1),
    "publish_store_us": ("the same in the store", "µs", 1),
    "delivery_us": ("its delivery to one stream", "µs", 1),
    "broadcast_us": ("a delivery of a broadcast", "µs", 1),
    "idle_wire_bytes": ("sent to an idle connection, a second", "B", 1),
    "delivery_wire_bytes": ("sent for a delivery", "B", 1),
    "connect_wire_bytes": ("sent as a stream opens", "B", 1),
}
"""By cost: in words, its unit, and how many bytes or µs that is."""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def inputs_table(found: Sequence[Input]) -> str:
    rows = []
    for each in found:
        words, unit, factor = _WORDS[each.name]
        value = each.value / factor
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        rows.append([words, f"{shown} {unit}", each.source])
    return table(["Cost", "Figure", "Source"], rows)


def plans_table(plans: Sequence[Plan]) -> str:
    def row(name: str, show: Any) -> list[str]:
        return [name, *(show(each) for each in plans)]

    rows = [
        row("workers", lambda p: f"{p.workers:,}"),
        row("… decided by", lambda p: p.workers_decided_by),
        row("nodes, with the spare", lambda p: f"{p.nodes:,}"),
        row("shards", lambda p: f"{p.shards:,}"),
        row("… decided by", lambda p: p.shards_decided_by),
        row("cores of nodes in use", lambda p: f"{p.cpu.nodes:,.2f}"),
        row("cores of shards in use", lambda p: f"{p.cpu.shards:,.2f}"),
        row("memory of workers, GiB", lambda p: f"{p.memory.workers / GIB:,.1f}"),
        row("memory of sockets, GiB", lambda p: f"{p.memory.kernel / GIB:,.1f}"),
        row("memory of shards, GiB", lambda p: f"{p.memory.shards / GIB:,.1f}"),
        row("all are back within, s", lambda p: f"{p.back_s:,.0f}"),
        row("a broadcast takes, s", lambda p: f"{p.broadcast_s:,.2f}"),
        row("sent, Mbit/s", lambda p: f"{p.sent_mbit_s:,.1f}"),
        row("sent during a broadcast, Mbit/s", lambda p: f"{p.broadcast_mbit_s:,.0f}"),
        row("dollars a month", lambda p: f"{p.dollars:,.0f}"),
    ]
    return table(["Connections", *(f"{each.connections:,}" for each in plans)], rows)


def comparison_table(found: Sequence[Comparison]) -> str:
    rows = []
    for each in found:
        factor, unit = (2**20, "MiB") if each.unit == "B" else (1.0, each.unit)
        rows.append(
            [
                each.what,
                f"{each.predicted / factor:,.2f} {unit}",
                f"{each.measured / factor:,.2f} {unit}",
                f"{each.ratio:.2f} x",
            ]
        )
    return table(["", "predicted", "measured", "ratio"], rows)


def tables(rates: Rates, machines: Machines) -> dict[str, str]:
    """Return the tables of ``docs/capacity.md`` that are computed, by name."""
    found = inputs(RESULTS.read_text(), json.loads(MEASURED.read_text()))
    plans = [plan(n, costs_of(found), rates, machines) for n in SIZES]
    return {"costs": inputs_table(found), "plans": plans_table(plans)}


def placed(page: str, found: dict[str, str]) -> str:
    """Return a page with each table between the comments that have its name."""
    for name, text in found.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found_begin or not found_end:
            raise KeyError(f"the page has no place for the table {name!r}")
        page = f"{before}{begin}{text}\n{end}{after}"
    return page


def _options_of(kind: Any) -> list[click.Option]:
    """Return an option for each field of `Rates` or `Machines`."""
    return [
        click.Option(
            [f"--{field.name.replace('_', '-')}"],
            type=type(field.default),
            default=field.default,
            show_default=True,
            help=_help_of(kind, field.name),
        )
        for field in dataclasses.fields(kind)
    ]


def _help_of(kind: Any, name: str) -> str:
    found = re.search(rf"\n +{name}: ((?:.+\n)(?: {{12}}.+\n)*)", kind.__doc__)
    assert found is not None, name
    return " ".join(found[1].split())


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def _run(
    *,
    write: bool,
    measure: bool,
    check: bool,
    hold: int,
    size: int,
    workers: int,
    nodes: int,
    loaders: int,
    seconds: float,
    **values: Any,
) -> None:
    if measure:
        result = measure_costs(size, seconds, _say)
        MEASURED.write_text(json.dumps(result, indent=1) + "\n")
    found = inputs(RESULTS.read_text(), json.loads(MEASURED.read_text()))
    costs = costs_of(found)
    if check:
        _check(size, seconds, costs)
        return
    if hold:
        fleet = Fleet(workers, hold, loaders=loaders, nodes=nodes, say=_say)
        _hold(fleet, seconds, size, costs)
        return

    def of(kind: Any) -> Any:
        names = [field.name for field in dataclasses.fields(kind)]
        return kind(**{name: values[name] for name in names})

    done = tables(of(Rates), of(Machines))
    if write:
        DOCS.write_text(placed(DOCS.read_text(), tables(Rates(), Machines())))
    for text in done.values():
        click.echo(text + "\n")


def _check(size: int, seconds: float, others: Costs) -> None:
    """Measure costs with one worker; compare 1, 2 and 4 with the prediction."""
    costs: Costs | None = None
    for workers in (1, 1, 2, 4):
        run = measure_run(workers, size * workers, seconds=seconds, say=_say)
        if costs is None:
            costs = costs_of_run(run, others)
            continue
        title = (
            f"{workers} worker{'s' * (workers > 1)}, {run.connections:,} connections"
        )
        click.echo(f"{title}\n\n{comparison_table(compare(run, costs))}\n")


def _hold(fleet: Fleet, seconds: float, size: int, others: Costs) -> None:
    """Open idle connections, and compare their memory and CPU with the prediction."""
    small = measure_run(1, size, seconds=seconds, say=_say)
    costs = costs_of_run(small, others)
    with fleet:
        phases = {"nothing": fleet.idle(seconds)}
        empty = fleet.memory()
        phases["connect"] = fleet.connect()
        phases["idle"] = fleet.idle(max(seconds, IDLE_S))
        full = fleet.memory()
    run = Run(fleet.workers, fleet.nodes, fleet.connections, phases, empty, full)
    took_s = phases["connect"].seconds
    click.echo(
        f"{fleet.connections:,} idle connections, {fleet.workers} workers; "
        f"{took_s:,.0f} s to open them\n\n{comparison_table(compare(run, costs))}"
    )


main = click.Command(
    "python -m bench.capacity",
    params=[
        click.Option(
            ["--write"], is_flag=True, help="Put the tables into docs/capacity.md."
        ),
        click.Option(
            ["--measure"],
            is_flag=True,
            help="Measure what RESULTS.md does not have, and write capacity.json.",
        ),
        click.Option(
            ["--check"], is_flag=True, help="Compare 1, 2 and 4 workers with the model."
        ),
        click.Option(
            ["--hold"], default=0, help="Open so many idle connections, and compare."
        ),
        click.Option(
            ["--size"],
            default=1_000,
            show_default=True,
            help="Connections per worker of --measure and --check.",
        ),
        click.Option(
            ["--workers"], default=1, show_default=True, help="Workers of --hold."
        ),
        click.Option(
            ["--nodes"],
            default=1,
            show_default=True,
            help="Nodes of --hold, which have its workers in equal parts.",
        ),
        click.Option(
            ["--loaders"], default=1, show_default=True, help="Its load processes."
        ),
        click.Option(
            ["--seconds"],
            default=5.0,
            show_default=True,
            help="Duration of a measurement.",
        ),
        *_options_of(Rates),
        *_options_of(Machines),
    ],
    callback=_run,
    help=__doc__,
    context_settings={"help_option_names": ["-h", "--help"]},
)

if __name__ == "__main__":
    main()

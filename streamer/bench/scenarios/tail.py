"""
Tail: what many readers and a broadcast a second do to a page.

Readers are connected, one per player. Five sections: the readers open; nothing happens;
pages are read; pages are read while messages go to everyone; all readers disconnect at
once. The latencies of pages show what a player meets beside a broadcast. The longest
turn of the event loop shows why: nothing else is served while one lasts. It is measured
as CPU time of the loop's thread, which other processes on the machine hardly change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..load.handle import Load, LoadError
from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_us,
    option,
    transport_option,
)
from ..target import Requirements

__all__ = ["SCENARIO"]

SIZE = 200
PAGES_MAX = 500
SAMPLED_MAX = 200
SETTLE_S = 3.0
"""How long after the last connect the readers count as idle."""

LEFT_S = 8.0
"""How long after a disconnect there may be work: channels are left 5 s later."""


def requirements(options: Options) -> Requirements:
    return Requirements(
        connections=options.connections, players=options.connections, turns=True
    )


def measure(trial: Trial) -> Measurements:
    options, count = trial.options, trial.options.connections
    pages = Load(1, set(trial.load_cores))
    try:
        figures = _measure(trial, pages, count, options.seconds * 2)
    finally:
        pages.stop()
    return figures


def _measure(trial: Trial, pages: Load, count: int, seconds: float) -> Measurements:
    options, target = trial.options, trial.target
    figures: Measurements = {}
    with _longest(trial, figures, "open_turn_ms"):
        sampled = max(1, count // SAMPLED_MAX)
        trial.open_readers(options.transport, count, count, sampled=sampled)
        trial.load.rest(SETTLE_S)

    trial.say("resting")
    with _longest(trial, figures, "idle_turn_ms"), trial.watch("idle") as used:
        trial.load.rest(seconds)
    figures["idle"] = used.server_cpu_s / used.wall_s * 100

    requests = [[target.page(number)] for number in range(min(count, PAGES_MAX))]
    order: dict[str, Any] = {
        "address": target.address,
        "templates": requests,
        "per_message": 0,
        "connections": 8,
        "rate": options.pages,
        "seconds": seconds,
    }
    trial.say("reading pages")
    alone = pages.run("publish", **order)
    trial.note_load({**alone, "load_shares": [alone["load_cpu_s"] / alone["wall_s"]]})
    figures |= _percentiles(trial, "alone", alone)

    trial.say("reading pages beside broadcasts")
    templates, _ = target.broadcast(SIZE, count)
    with _longest(trial, figures, "turn_ms"), trial.watch("broadcasts") as used:
        pages.begin("publish", **order)
        sent = trial.load.publish(
            address=target.address,
            templates=templates,
            rate=options.broadcasts,
            seconds=seconds,
        )
        beside = pages.end()
    trial.note_load(sent)
    trial.note_load(
        {**beside, "load_shares": [beside["load_cpu_s"] / beside["wall_s"]]}
    )
    if sent["received"] != sent["sent"] * count:
        raise LoadError(
            f"{sent['sent']:,} messages to {count:,} readers, but "
            f"{sent['received']:,} deliveries"
        )
    figures |= _percentiles(trial, "beside", beside)
    figures["beside_ratio"] = figures["beside_p99_us"] / figures["alone_p99_us"]
    receipt = trial.note_latency("receipt", latency_us(sent))
    figures["receipt_p99_us"] = receipt["p99_us"]
    figures["share"] = used.server_cpu_s / used.wall_s * 100

    trial.say("disconnecting all readers")
    with _longest(trial, figures, "close_turn_ms"), trial.watch("close") as used:
        trial.load.close()
        pages.rest(LEFT_S)
    figures["close_cpu_us"] = used.server_cpu_s / count * 1e6
    return figures


@contextlib.contextmanager
def _longest(trial: Trial, figures: Measurements, key: str) -> Iterator[None]:
    """Note the longest turn of the event loop in the block, if turns are measured."""
    before = trial.target.turns()
    yield
    after = trial.target.turns()
    if before is not None and after is not None and after.number > before.number:
        figures[key] = after.since(before).longest_ms


def _percentiles(trial: Trial, name: str, facts: dict[str, Any]) -> Measurements:
    latency = trial.note_latency(f"page {name}", facts["duration_us"])
    return {f"{name}_{key}": latency[key] for key in ("p50_us", "p99_us")}


SCENARIO = Scenario(
    name="tail",
    title="Pages beside {broadcasts:g} broadcasts per second to {connections:,} "
    "readers over {transport}",
    figures=[
        Figure("beside_p99_us", "page beside p99", "µs", 0),
        Figure("beside_p50_us", "p50", "µs", 0),
        Figure("alone_p99_us", "page alone p99", "µs", 0),
        Figure("alone_p50_us", "p50", "µs", 0),
        Figure("beside_ratio", "p99, beside : alone", "", 2),
        Figure("turn_ms", "longest turn", "ms CPU", 1),
        Figure("open_turn_ms", "longest while connecting", "ms CPU", 1),
        Figure("idle_turn_ms", "longest at rest", "ms CPU", 1),
        Figure("close_turn_ms", "longest while disconnecting", "ms CPU", 1),
        Figure("close_cpu_us", "CPU per disconnect", "µs", 0, of_process=True),
        Figure("receipt_p99_us", "receipt p99", "µs", 0),
        Figure("idle", "core at rest", "%", 2, of_process=True),
        Figure("share", "core with both", "%", 1, of_process=True),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 10_000, "Number of readers."),
        transport_option(),
        option("--broadcasts", 1.0, "Messages to everyone per second."),
        option("--pages", 100.0, "Pages read per second."),
    ],
    about="A turn is what the event loop does between two waits, in CPU time of its "
    "thread. It is measured of servers that this command starts, and needs a C "
    "compiler. A page is due at its time, whether or not the one before was answered.",
)

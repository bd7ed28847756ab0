"""
Unicast: each message goes to one of N readers, all of different players.

Servers with a store run as two nodes on one store where they can: one publishes, and
the cost of the other, which delivers, is measured, and that of both.
"""

from __future__ import annotations

from typing import Any

from ..load.handle import LoadError
from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    latency_us,
    option,
    transport_option,
)
from ..target import Requirements

__all__ = ["SCENARIO"]

SIZE = 200


def requirements(options: Options) -> Requirements:
    count = options.connections
    return Requirements(connections=count, players=count, stored=True, publisher=True)


def measure(trial: Trial) -> Measurements:
    options, target = trial.options, trial.target
    count = options.connections
    trial.open_readers(options.transport, count, count)
    templates, each = target.publish_separately(SIZE, count, options.per_request)
    order: dict[str, Any] = {
        "address": target.publisher,
        "templates": templates,
        "players": count,
        "connections": 32,
        "per_message": each,
    }
    trial.say("warming up")
    rate = options.rate / each
    trial.note_load(trial.load.publish(**order, rate=rate / 2, seconds=1))

    trial.say("measuring the cost of a message")
    before = target.publisher_usage()
    with trial.watch() as used:
        steady = trial.load.publish(**order, rate=rate, seconds=options.seconds)
    publishing = target.publisher_usage()
    trial.note_load(steady)
    if steady["received"] != steady["sent"] * each:
        raise LoadError(
            f"{steady['sent'] * each:,} messages, but {steady['received']:,} deliveries"
        )
    return {
        "cpu_us": used.server_cpu_s / steady["received"] * 1e6,
        "both_us": (used.server_cpu_s + publishing.server_cpu_s - before.server_cpu_s)
        / steady["received"]
        * 1e6,
        "store_us": used.store_cpu_s / steady["received"] * 1e6,
        **trial.note_latency("receipt", latency_us(steady)),
        "share": used.server_cpu_s / used.wall_s * 100,
    }


SCENARIO = Scenario(
    name="unicast",
    title="{rate:,.0f} messages per second, each to one of {connections:,} readers "
    "over {transport}",
    figures=[
        Figure("cpu_us", "CPU per message", "µs", 1, of_process=True),
        Figure("both_us", "of both nodes", "µs", 1, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 1, of_process=True, of_store=True),
        *latency_figures(),
        Figure("share", "core of the server", "%", 0, of_process=True),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        transport_option(),
        option("--rate", 1_000.0, "Messages per second."),
        option("--per-request", 1, "Messages per request."),
    ],
    about="CPU includes publishing where the same node publishes and delivers.",
)

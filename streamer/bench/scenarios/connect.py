"""
Connecting: what a connection costs to open, and to hold while nothing happens.

Every reader is a player of its own, with a token of its own. The rate of connections is
measured with a fixed number of handshakes in flight.
"""

from __future__ import annotations

from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    option,
    transport_option,
)
from ..target import Requirements

__all__ = ["SCENARIO"]

WARM_UP = 20


def requirements(options: Options) -> Requirements:
    count = options.connections
    return Requirements(connections=count, players=count, presence=True)


def measure(trial: Trial) -> Measurements:
    options = trial.options
    count = options.connections
    # The first connections make the server load modules, which is not to be measured.
    trial.open_readers(options.transport, WARM_UP, WARM_UP)
    trial.load.close()
    trial.load.rest(0.5)
    before = trial.target.usage()
    with trial.watch() as used:
        opened = trial.open_readers(
            options.transport,
            count,
            count,
            sampled=0,
            in_flight=options.in_flight,
            sources=options.sources,
        )
    trial.note_load(opened)
    trial.say("holding the connections")
    with trial.watch("idle") as idle:
        trial.load.rest(options.idle)
    held = trial.target.usage()
    return {
        "cpu_us": used.server_cpu_s / count * 1e6,
        "store_us": used.store_cpu_s / count * 1e6,
        "per_s": count / opened["seconds"],
        **trial.note_latency("open", opened["duration_us"]),
        "rss_kib": (held.server_rss - before.server_rss) / count / 1024,
        "idle": idle.server_cpu_s / idle.wall_s * 100,
    }


SCENARIO = Scenario(
    name="connect",
    title="Opening {connections:,} connections over {transport}, {in_flight} at a time",
    figures=[
        Figure("cpu_us", "CPU per connect", "µs", 0, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 0, of_process=True, of_store=True),
        Figure("per_s", "connects per second", "", 0, lower_is_better=False),
        *latency_figures(),
        Figure("rss_kib", "RSS when idle", "KiB", 1, of_process=True),
        Figure("idle", "CPU when idle", "%", 1, of_process=True),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        transport_option(),
        option("--in-flight", 64, "Handshakes in flight at a time."),
        option("--sources", 4, "Loopback addresses to connect from (1 elsewhere)."),
        option("--idle", 3.0, "Seconds until memory is measured."),
    ],
    about="Each connection is a different player's. streamer verifies its token and "
    "takes a lease. RSS does not include the kernel's memory.",
)

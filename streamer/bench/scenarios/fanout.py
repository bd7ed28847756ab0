"""
Fan-out: one message to N readers.

Each reader is a player of its own, and the message goes to everyone; a server without
players has all readers in one channel. ``--to player`` makes all readers connections of
a single player instead. Three measurements: what a delivery costs at a fixed rate; how
many deliveries are possible with two messages in flight at all times; how late messages
are at half of that rate.
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
# Less than the slowest server delivers: a server that cannot keep up sends several
# messages in one write, and looks cheaper for it.
DELIVERIES_PER_S = 20_000
MESSAGES_PER_S_MAX = 100
SAMPLED_MAX = 200


def requirements(options: Options) -> Requirements:
    players = options.connections if options.to == "everyone" else 1
    return Requirements(connections=options.connections, players=players)


def measure(trial: Trial) -> Measurements:
    count = trial.options.connections
    if trial.options.to == "everyone":
        templates, players = trial.target.broadcast(SIZE, count)
    else:
        templates, players = trial.target.publish(SIZE), 1
    with trial.watch() as opening:
        sampled = max(1, count // SAMPLED_MAX)
        trial.open_readers(trial.options.transport, count, players, sampled=sampled)
    order: dict[str, Any] = {"address": trial.target.address, "templates": templates}
    seconds = trial.options.seconds
    trial.say("warming up")
    trial.note_load(trial.load.publish(**order, rate=10, seconds=1))

    trial.say("measuring the cost of a delivery")
    rate = trial.options.rate or min(DELIVERIES_PER_S / count, MESSAGES_PER_S_MAX)
    with trial.watch() as used:
        steady = trial.load.publish(**order, rate=rate, seconds=seconds)
    trial.note_load(steady)
    _require_all(steady, count)

    trial.say("measuring the maximum")
    full = trial.load.publish(**order, window=2, seconds=seconds)
    trial.note_load(full)
    _require_all(full, count)
    per_s = full["sent"] / full["wall_s"]

    trial.say("measuring latency at half of the maximum")
    half = trial.load.publish(**order, rate=per_s / 2, seconds=seconds)
    trial.note_load(half)
    _require_all(half, count)
    return {
        "cpu_us": used.server_cpu_s / steady["received"] * 1e6,
        "per_s": full["received"] / full["wall_s"],
        **trial.note_latency("receipt", latency_us(half)),
        "rss_kib": opening.server_rss / count / 1024,
    }


def _require_all(facts: dict[str, int], count: int) -> None:
    if facts["received"] != facts["sent"] * count:
        raise LoadError(
            f"{facts['sent']:,} messages to {count:,} readers, but "
            f"{facts['received']:,} deliveries"
        )


SCENARIO = Scenario(
    name="fanout",
    title="One message of 200 bytes to {to}: {connections:,} readers over {transport}",
    figures=[
        Figure("cpu_us", "CPU per delivery", "µs", 2, of_process=True),
        Figure("per_s", "max. deliveries per second", "", 0, lower_is_better=False),
        *latency_figures("at half of it"),
        Figure("rss_kib", "RSS per connection", "KiB", 1, of_process=True),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        transport_option(),
        option("--to", "everyone", "Recipients.", choices=["everyone", "player"]),
        option(
            "--rate",
            0.0,
            "Messages per second for the cost. Default: 20,000 / connections, at most "
            "100.",
        ),
    ],
    about="CPU is the server's and includes publishing; its store is not included. "
    "200 bytes is the text alone; what each server wraps around it is added. RSS is "
    "measured right after opening.",
)

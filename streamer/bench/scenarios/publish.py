"""
Publishing: requests that store a notification, for one player or many at a time.

There are no readers. Two measurements: how many requests are possible with a fixed
number in flight at all times; how long a request takes at half of that rate.
"""

from __future__ import annotations

from typing import Any

from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    option,
)
from ..target import Requirements

__all__ = ["SCENARIO"]

SIZE = 200


def requirements(options: Options) -> Requirements:
    return Requirements(players=options.players, stored=True)


def measure(trial: Trial) -> Measurements:
    options, target = trial.options, trial.target
    order: dict[str, Any] = {
        "address": target.address,
        "templates": target.publish_stored(SIZE, options.players, options.batch),
        "players": options.players,
        "connections": options.concurrency,
    }
    before = target.store_bytes()
    trial.say("warming up")
    warm = trial.load.publish(**order, rate=20, seconds=1)
    trial.note_load(warm)

    trial.say("measuring the maximum")
    with trial.watch() as used:
        full = trial.load.publish(
            **order, window=options.concurrency, seconds=options.seconds
        )
    trial.note_load(full)
    stored = full["answered"] * options.batch
    measurements = {
        "per_s": stored / full["wall_s"],
        "cpu_us": used.server_cpu_s / stored * 1e6,
        "store_us": used.store_cpu_s / stored * 1e6,
    }
    if before:
        kept = stored + warm["answered"] * options.batch
        measurements["bytes"] = (target.store_bytes() - before) / kept

    trial.say("measuring latency at half of the maximum")
    rate = full["answered"] / full["wall_s"] / 2
    half = trial.load.publish(**order, rate=rate, seconds=options.seconds)
    trial.note_load(half)
    return {**measurements, **trial.note_latency("answer", half["duration_us"])}


SCENARIO = Scenario(
    name="publish",
    title="Storing notifications of 200 bytes, {batch} per request, {concurrency} "
    "requests at a time",
    figures=[
        Figure("cpu_us", "CPU each", "µs", 1, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 1, of_process=True, of_store=True),
        Figure("per_s", "max. per second", "", 0, lower_is_better=False),
        *latency_figures("a request at half of it"),
        Figure("bytes", "memory of the store each", "B", 0),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--batch", 1, "Players per request."),
        option("--players", 1_000, "Number of players, in turn."),
        option("--concurrency", 32, "Requests in flight at a time."),
    ],
    about="Memory is that of stored notifications, with their share of what a player "
    "costs.",
)

"""
Resume: N readers come back after they have missed a hundred messages each.

The scenario measures how long it takes until all of them have caught up, and what a
replayed message costs.
"""

from __future__ import annotations

from ..scenario import Figure, Measurements, Options, Scenario, Trial, option
from ..target import Requirements
from .storm import FIGURES, ReaderFleet, measurements

__all__ = ["SCENARIO"]


def requirements(options: Options) -> Requirements:
    count = options.connections
    return Requirements(connections=count, players=count, stored=True)


def measure(trial: Trial) -> Measurements:
    fleet = ReaderFleet(trial)
    fleet.open()
    fleet.publish(trial.load, 1)
    fleet.begin_return(expected=fleet.published, spread_s=0)
    trial.load.end()
    trial.load.run("drop")
    trial.say("publishing while no reader is connected")
    fleet.publish(trial.load, trial.options.missed)

    trial.say("catching up")
    with trial.watch() as used:
        fleet.begin_return(expected=fleet.published, spread_s=0)
        facts = trial.load.end()
    replayed = fleet.count * trial.options.missed
    result = measurements(trial, facts, used.server_cpu_s, fleet.count)
    result["per_s"] = replayed / result["all_s"]
    result["cpu_us"] = used.server_cpu_s / replayed * 1e6
    result["store_us"] = used.store_cpu_s / replayed * 1e6
    return result


SCENARIO = Scenario(
    name="resume",
    title="{connections:,} readers catch up with {missed} missed messages each",
    figures=[
        Figure("cpu_us", "CPU per replayed message", "µs", 1, of_process=True),
        Figure("store_us", "CPU of the store", "µs", 1, of_process=True, of_store=True),
        Figure("per_s", "replayed per second", "", 0, lower_is_better=False),
        *[figure for figure in FIGURES if figure.key not in ("cpu_us", "refused")],
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        option("--missed", 100, "Messages that each reader has missed."),
    ],
    about="Time and CPU include connecting again.",
)

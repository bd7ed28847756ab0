"""
Storm: see `streamer.bench.scenarios.storm`.

Here the server's limit of connections per second can be chosen, and with ``--kill`` the
server is killed and started again when the readers are cut off.
"""

from __future__ import annotations

import dataclasses

import click

from streamer.bench.scenario import Measurements, Options, Trial, option
from streamer.bench.scenarios import storm
from streamer.bench.target import Requirements, Unsupported

from .peers import Streamer
from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "centrifugo")


def requirements(options: Options) -> Requirements:
    return storm.requirements(options)._replace(connects_per_s=options.connects_per_s)


def measure(trial: Trial) -> Measurements:
    if not trial.options.kill:
        return storm.measure(trial)
    if not isinstance(trial.target, Streamer):
        raise Unsupported("--kill is for servers that the bench has started")
    result = storm.measure(trial, interrupt=trial.target.restart)
    del result["cpu_us"]  # The process that it would be counted from has ended.
    return result


SCENARIO = dataclasses.replace(
    storm.SCENARIO,
    requirements=requirements,
    measure=measure,
    options=[
        *storm.SCENARIO.options,
        option("--connects-per-s", 1_500, "Limit of the server."),
        click.Option(["--kill"], is_flag=True, help="Kill the server and restart it."),
    ],
)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

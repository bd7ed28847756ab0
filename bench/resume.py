"""
Resume: N readers come back that have missed a hundred messages each.

Asked is how long it takes until all have caught up, and what a replayed message costs.
"""

from __future__ import annotations

import argparse

from .peers import Setup
from .run.harness import Answer, Figure, Options, Question, Turn, main
from .storm import FIGURES, Crowd, answer

__all__ = ["QUESTION"]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000, help="readers (1000)")
    parser.add_argument("--missed", type=int, default=100, help="by each (100)")


def setup(options: Options) -> Setup:
    return Setup(connections=options.connections, players=options.connections)


def ask(turn: Turn) -> Answer:
    crowd = Crowd(turn)
    crowd.settle()
    crowd.publish(turn.load, 1)
    crowd.come(0)
    turn.load.end()
    turn.load.ask("drop")
    turn.say("publishing while nobody is there")
    crowd.publish(turn.load, turn.options.missed)

    turn.say("catching up")
    with turn.watch() as watch:
        crowd.come(0)
        facts = turn.load.end()
    replayed = crowd.count * turn.options.missed
    found = answer(turn, facts, watch.server_cpu_s, crowd.count)
    found["per_s"] = replayed / found["all_s"]
    found["cpu_us"] = watch.server_cpu_s / replayed * 1e6
    found["store_us"] = watch.store_cpu_s / replayed * 1e6
    return found


QUESTION = Question(
    name="resume",
    title="{connections:,} readers catch up with {missed} missed messages each",
    figures=[
        Figure("cpu_us", "CPU per replayed message", "µs", 1),
        Figure("store_us", "the store's", "µs", 1),
        Figure("per_s", "replayed a second", "", 0, lower_is_better=False),
        *[figure for figure in FIGURES if figure.key not in ("cpu_us", "refused")],
    ],
    peers=["streamer"],
    setup=setup,
    ask=ask,
    options=options,
    about="Connecting again is in the time and in the CPU.",
)

if __name__ == "__main__":
    main(QUESTION)

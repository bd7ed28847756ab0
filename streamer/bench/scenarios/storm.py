"""
Storm: N readers are cut off at once, and all of them come back at once.

They behave as the protocol asks of clients: a random wait of up to half a second,
``Retry-After``, a growing back-off, the cursor of the last message. Meanwhile more is
published. The scenario measures how long it takes until all readers are connected and
complete, and counts lost and duplicate messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..load.handle import Load, LoadError
from ..requests import RequestParts
from ..scenario import (
    PERCENTILES,
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    option,
)
from ..target import Requirements

__all__ = ["FIGURES", "SCENARIO", "ReaderFleet", "measure", "measurements"]

SIZE = 200
PER_REQUEST = 1_000
SPREAD_S = 0.5
WITHIN_S = 120.0
ATTEMPTS = 20
REPEAT_S = 0.5


class ReaderFleet:
    """
    Resuming readers, one per player, and what was published to all of them.

    Each publication has a number, and a message of it goes to every reader.
    """

    def __init__(self, trial: Trial) -> None:
        self.target = trial.target
        self.trial = trial
        self.count = trial.options.connections
        self.published = 0
        self.repeated = 0

    def open(self) -> None:
        """Connect all readers, a few at a time."""
        self.trial.say(f"opening {self.count:,} readers")
        plan = {
            "address": self.target.address,
            **self.target.resuming_readers(self.count)._asdict(),
            "in_flight": 64,
        }
        facts = self.trial.load.run("settle", plan=plan, expected=0, within_s=WITHIN_S)
        if not facts["done"]:
            raise LoadError(f"the readers could not be opened: {facts['refused']}")

    def publish(self, load: Load, messages: int) -> None:
        """Publish so many messages to every reader."""
        for number in range(self.published, self.published + messages):
            for request in self.target.publish_many(
                SIZE, self.count, PER_REQUEST, number=number
            ):
                self._send(load, request)
        self.published += messages

    def _send(self, load: Load, request: RequestParts) -> None:
        """Send a request until its response is a 200, as a backend would."""
        facts: dict[str, Any] = {}
        for attempt in range(ATTEMPTS):
            if attempt:
                self.repeated += 1
                time.sleep(REPEAT_S)
            facts = load.publish(
                address=self.target.address,
                templates=[request],
                window=1,
                seconds=60,
                count=1,
            )
            if facts["statuses"] == {"200": 1}:
                return
            if set(facts["statuses"]) - {"503"}:
                break
        raise LoadError(f"publishing failed: {facts['failed'] or facts['refusal']}")

    def begin_return(self, *, expected: int, spread_s: float) -> None:
        """Let all readers come back; `Load.end` returns when they are complete."""
        self.trial.load.begin(
            "connect_all", expected=expected, spread_s=spread_s, within_s=WITHIN_S
        )


def requirements(options: Options) -> Requirements:
    count = options.connections
    return Requirements(connections=count, players=count, stored=True, presence=True)


def measure(
    trial: Trial, *, interrupt: Callable[[], None] | None = None
) -> Measurements:
    """Cut all readers off, call `interrupt`, and let them come back."""
    fleet = ReaderFleet(trial)
    publisher = Load(1, set())
    try:
        fleet.open()
        fleet.publish(publisher, 1)
        fleet.begin_return(expected=fleet.published, spread_s=0)
        trial.load.end()

        trial.say("waiting for all readers to come back")
        with trial.watch() as used:
            trial.load.run("drop")
            if interrupt is not None:
                interrupt()
            expected = fleet.published + trial.options.messages
            fleet.begin_return(expected=expected, spread_s=SPREAD_S)
            started_s = time.monotonic()
            fleet.publish(publisher, trial.options.messages)
            published_s = time.monotonic() - started_s
            facts = trial.load.end()
    finally:
        publisher.stop()
    result = measurements(trial, facts, used.server_cpu_s, fleet.count)
    return {**result, "published_s": published_s, "repeated": fleet.repeated}


def measurements(
    trial: Trial, facts: dict[str, Any], cpu_s: float, count: int
) -> Measurements:
    """Return the measurements of a fleet's return."""
    if not facts["done"]:
        plain = {k: v for k, v in facts.items() if isinstance(v, int | float | dict)}
        raise LoadError(f"not all readers came back: {plain}")
    trial.note_load({"load_shares": [facts["load_cpu_s"] / facts["wall_s"]]})
    latency = trial.note_latency("back", facts["duration_us"])
    return {
        "all_s": facts["wall_s"],
        **{key.replace("_us", "_s"): us / 1e6 for key, us in latency.items()},
        "lost": facts["lost"],
        "doubled": facts["doubled"],
        "gaps": facts["gaps"],
        "refused": sum(facts["refused"].values()),
        "cpu_us": cpu_s / count * 1e6,
    }


FIGURES = [
    Figure("all_s", "until all are complete", "s", 2),
    *(Figure(f"p{percent}_s", f"p{percent}", "s", 2) for percent in PERCENTILES),
    Figure("lost", "lost", "", 0),
    Figure("doubled", "duplicates", "", 0),
    Figure("gaps", "gaps", "", 0),
    Figure("refused", "refusals", "", 0),
    Figure("cpu_us", "CPU per reader", "µs", 0, of_process=True),
]

SCENARIO = Scenario(
    name="storm",
    title="{connections:,} readers cut off at once",
    figures=[
        *FIGURES,
        Figure("published_s", "duration of publishing", "s", 2),
        Figure("repeated", "publishes repeated", "", 0),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        option("--messages", 3, "Messages published to each reader meanwhile."),
    ],
    about="A reader is complete when it is connected and has received all that was "
    "published until the end. Publishing begins with the storm and is repeated after a "
    "503, with its Idempotency-Key. The server admits as many connections per second "
    "as its setting says and refuses others with Retry-After; this is part of the "
    "time.",
)

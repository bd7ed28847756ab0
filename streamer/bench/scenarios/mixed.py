"""
Mixed: an afternoon of a game, everything at once.

Idle readers hold connections; messages go to single players; pages are read. All of it
follows a timetable, so that the latencies show what one kind of work does to another.
"""

from __future__ import annotations

from ..load.handle import Load
from ..scenario import (
    Figure,
    Measurements,
    Options,
    Scenario,
    Trial,
    latency_figures,
    latency_us,
    option,
)
from ..target import Requirements

__all__ = ["SCENARIO"]

SIZE = 200
PAGES_MAX = 500


def requirements(options: Options) -> Requirements:
    return Requirements(connections=options.connections, players=options.connections)


def measure(trial: Trial) -> Measurements:
    options, target = trial.options, trial.target
    count = options.connections
    seconds = options.seconds * 2
    pages = Load(1, set(trial.load_cores))
    try:
        trial.open_readers("ws", count, count)
        requests = [[target.page(number)] for number in range(min(count, PAGES_MAX))]
        trial.say("doing everything at once")
        with trial.watch() as used:
            pages.begin(
                "publish",
                address=target.address,
                templates=requests,
                per_message=0,
                connections=8,
                rate=options.pages,
                seconds=seconds,
            )
            published = trial.load.publish(
                address=target.address,
                templates=target.publish(SIZE),
                per_message=1,
                players=count,
                connections=8,
                rate=options.messages,
                seconds=seconds,
            )
            read = pages.end()
    finally:
        pages.stop()
    trial.note_load(published)
    trial.note_load({**read, "load_shares": [read["load_cpu_s"] / read["wall_s"]]})
    receipt = trial.note_latency("receipt", latency_us(published))
    page = trial.note_latency("page", read["duration_us"])
    publish = trial.note_latency("publish", published["duration_us"])
    return {
        "share": used.server_cpu_s / used.wall_s * 100,
        "store": used.store_cpu_s / used.wall_s * 100,
        **{f"receipt_{key}": us for key, us in receipt.items()},
        **{f"publish_{key}": us for key, us in publish.items()},
        **{f"page_{key}": us for key, us in page.items()},
    }


SCENARIO = Scenario(
    name="mixed",
    title="{connections:,} readers, {messages:,.0f} messages and {pages:,.0f} pages "
    "per second",
    figures=[
        Figure("share", "core of the server", "%", 0, of_process=True),
        Figure("store", "core of the store", "%", 0, of_process=True, of_store=True),
        *latency_figures("receipt", prefix="receipt_"),
        *latency_figures("publish", prefix="publish_"),
        *latency_figures("page", prefix="page_"),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--connections", 1_000, "Number of readers."),
        option("--messages", 200.0, "Messages published per second."),
        option("--pages", 100.0, "Pages read per second."),
    ],
    about="Latencies count from the time at which a message or request was due.",
)

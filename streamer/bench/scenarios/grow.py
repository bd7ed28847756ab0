"""
Growth: what publishing and reading cost where there is much, against little.

Publishing to many players in turn against few, to a topic with many members against
none, and the first page of a long inbox against a short one. Much and little are
measured in turns, in one run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..deployment import StreamerTarget
from ..requests import RequestParts
from ..scenario import Figure, Measurements, Options, Scenario, Trial, option
from ..target import Requirements, Unsupported
from .lists import KEPT, SIZE, _Client

__all__ = ["SCENARIO"]

FEW: Final = 1_000
PER_REQUEST: Final = 500
PARTS: Final = 4
"""How often much and little take turns."""


def requirements(options: Options) -> Requirements:
    return Requirements(players=options.players, stored=True)


def measure(trial: Trial) -> Measurements:
    o, target = trial.options, trial.target
    if not isinstance(target, StreamerTarget):
        raise Unsupported(f"{target.title} has no inboxes")
    client = _Client(target)
    trial.say("publishing to every player once")
    every = target.publish_many(SIZE, o.players, PER_REQUEST)
    _send(trial, every, players=o.players, count=len(every), seconds=600)
    trial.say("joining the members of a topic")
    topics = [f"bench/{target.app}/grow/{n}" for n in range(2)]
    for number in range(o.members):
        path = f"/v1/players/{target.player(number)}/topics/"
        client.ask("PUT", path + topics[1].replace("/", "%2F"))
    trial.say("filling two inboxes")
    client.publish({"players": [target.player(0)]}, KEPT)
    client.publish({"players": [target.player(1)]}, o.kept)

    to_topic = [_to_topic(target, topic) for topic in topics]
    pages: list[list[RequestParts]] = [[[target.page(n)]] for n in range(2)]
    publish = target.publish(SIZE)
    trial.say("measuring in turns")
    measurements: Measurements = {}
    asked: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "players": (
            lambda: _send(trial, publish, players=FEW, seconds=o.seconds / PARTS),
            lambda: _send(trial, publish, players=o.players, seconds=o.seconds / PARTS),
        ),
        "members": (
            lambda: _send(trial, to_topic[0], seconds=o.seconds / PARTS),
            lambda: _send(trial, to_topic[1], seconds=o.seconds / PARTS),
        ),
        "kept": (
            lambda: _send(trial, pages[0], seconds=o.seconds / PARTS),
            lambda: _send(trial, pages[1], seconds=o.seconds / PARTS),
        ),
    }
    for name, pair in asked.items():
        sums = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
        for _ in range(PARTS):
            for which, send in enumerate(pair):
                with trial.watch() as used:
                    facts = send()
                sums[which][0] += used.server_cpu_s
                sums[which][1] += used.store_cpu_s
                sums[which][2] += facts["answered"]
        (node, store, count), (node_of_many, store_of_many, count_of_many) = sums
        measurements |= {
            f"{name}_us": node_of_many / count_of_many * 1e6,
            f"{name}_store_us": store_of_many / count_of_many * 1e6,
            f"{name}_ratio": node_of_many / count_of_many / max(node / count, 1e-12),
            f"{name}_store_ratio": store_of_many
            / count_of_many
            / max(store / count, 1e-12),
        }
    return measurements


def _to_topic(target: StreamerTarget, topic: str) -> list[RequestParts]:
    before, target.topic = target.topic, topic
    try:
        return target.broadcast(SIZE, 1)[0]
    finally:
        target.topic = before


def _send(trial: Trial, requests: list[RequestParts], **order: Any) -> Any:
    concurrency = trial.options.concurrency
    facts = trial.load.publish(
        address=trial.target.address,
        templates=requests,
        connections=concurrency,
        window=concurrency,
        **order,
    )
    trial.note_load(facts)
    return facts


def _figures(name: str, label: str) -> list[Figure]:
    of_store = {"of_process": True, "of_store": True}
    return [
        Figure(f"{name}_us", label, "µs", 0, of_process=True),
        Figure(f"{name}_ratio", "ratio", "", 2, of_process=True),
        Figure(f"{name}_store_us", "store", "µs", 0, **of_store),
        Figure(f"{name}_store_ratio", "ratio", "", 2, **of_store),
    ]


SCENARIO = Scenario(
    name="grow",
    title="{players:,} players, a topic of {members:,}, an inbox of {kept:,}",
    figures=[
        *_figures("players", "publish to many players"),
        *_figures("members", "publish to many members"),
        *_figures("kept", "page of a long inbox"),
    ],
    requirements=requirements,
    measure=measure,
    options=[
        option("--players", 100_000, "Number of players, in turn."),
        option("--members", 2_000, "Members of the topic."),
        option("--kept", 10_000, "Notifications in the long inbox."),
        option("--concurrency", 16, "Requests in flight at a time."),
    ],
    about=f"The ratios are to {FEW:,} players, to a topic without members and to an "
    f"inbox of {KEPT}, in the same run and in turns.",
)

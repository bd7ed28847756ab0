"""
Publishing: requests that store a notification, one by one or many players at a time.

Nobody listens. Two measurements: with so many requests under way at all times, how many
a second; at half of that, how long one takes.
"""

from __future__ import annotations

import argparse

from .peers import Setup, Streamer
from .run.harness import Answer, Figure, Options, Question, Turn, main

__all__ = ["QUESTION"]

SIZE = 200


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch", type=int, default=1, help="players in one request (1)"
    )
    parser.add_argument("--players", type=int, default=1_000, help="in turn (1000)")
    parser.add_argument(
        "--concurrency", type=int, default=32, help="requests under way (32)"
    )


def setup(options: Options) -> Setup:
    return Setup(players=options.players, stored=True)


def ask(turn: Turn) -> Answer:
    options, peer = turn.options, turn.peer
    order = {
        "address": peer.address,
        "templates": peer.publish_stored(SIZE, options.players, options.batch),
        "players": options.players,
        "connections": options.concurrency,
    }
    before = peer.store_bytes() if isinstance(peer, Streamer) else 0
    turn.say("warming up")
    warm = turn.load.publish(**order, rate=20, seconds=1)
    turn.note_load(warm)

    turn.say("how many a second")
    with turn.watch() as watch:
        full = turn.load.publish(
            **order, window=options.concurrency, seconds=options.seconds
        )
    turn.note_load(full)
    stored = full["answered"] * options.batch
    answer = {
        "per_s": stored / full["wall_s"],
        "cpu_us": watch.server_cpu_s / stored * 1e6,
        "store_us": watch.store_cpu_s / stored * 1e6,
    }
    if before:
        kept = stored + warm["answered"] * options.batch
        answer["bytes"] = (peer.store_bytes() - before) / kept

    turn.say("how long one takes at half of that")
    rate = full["answered"] / full["wall_s"] / 2
    half = turn.load.publish(**order, rate=rate, seconds=options.seconds)
    turn.note_load(half)
    return {**answer, **turn.note_latency("answer", half["took_us"])}


QUESTION = Question(
    name="publish",
    title="Storing notifications of 200 bytes, {batch} a request, {concurrency} "
    "requests at a time",
    figures=[
        Figure("cpu_us", "CPU each", "µs", 1),
        Figure("store_us", "the store's", "µs", 1),
        Figure("per_s", "a second, at most", "", 0, lower_is_better=False),
        Figure("p50_us", "p50 of a request at half of it", "µs", 0),
        Figure("p99_us", "p99", "µs", 0),
        Figure("bytes", "store's memory each", "B", 0),
    ],
    peers=["streamer", "starlette"],
    setup=setup,
    ask=ask,
    options=options,
    about="Starlette: an endpoint that parses the body and calls one script, on a "
    "store that syncs as ours does. Memory is of notifications that are kept, with "
    "their share of what a player costs.",
)

if __name__ == "__main__":
    main(QUESTION)

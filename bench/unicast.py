"""
Unicast: each message to one of N readers, all of different players.

Servers with a store are asked as two nodes on one store: the message is published on
one, and what it costs the other to deliver it is measured.
"""

from __future__ import annotations

import argparse

from .peers import Setup
from .run.harness import Answer, Figure, Options, Question, Turn, late_us, main

__all__ = ["QUESTION"]

SIZE = 200


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000, help="readers (1000)")
    parser.add_argument("--transport", choices=["ws", "sse"], default="ws")
    parser.add_argument("--rate", type=float, default=1_000, help="messages/s (1000)")
    parser.add_argument(
        "--per-request", type=int, default=10, help="messages a request, streamer (10)"
    )


def setup(options: Options) -> Setup:
    count = options.connections
    return Setup(connections=count, players=count, stored=True, publisher=True)


def ask(turn: Turn) -> Answer:
    options, peer = turn.options, turn.peer
    count = options.connections
    turn.open_readers(options.transport, count, count)
    templates, each = peer.publish_apart(SIZE, count, options.per_request)
    order = {
        "address": peer.publisher,
        "templates": templates,
        "players": count,
        "connections": 32,
        "per_message": each,
    }
    turn.say("warming up")
    rate = options.rate / each
    turn.note_load(turn.load.publish(**order, rate=rate / 2, seconds=1))

    turn.say("what a message costs")
    with turn.watch() as watch:
        steady = turn.load.publish(**order, rate=rate, seconds=options.seconds)
    turn.note_load(steady)
    if steady["received"] != steady["sent"] * each:
        raise RuntimeError(
            f"{steady['sent'] * each:,} messages, {steady['received']:,} deliveries"
        )
    return {
        "cpu_us": watch.server_cpu_s / steady["received"] * 1e6,
        "store_us": watch.store_cpu_s / steady["received"] * 1e6,
        **turn.note_latency("receipt", late_us(steady)),
        "share": watch.server_cpu_s / watch.wall_s * 100,
    }


QUESTION = Question(
    name="unicast",
    title="{rate:,.0f} messages a second, each to one of {connections:,} readers over "
    "{transport}",
    figures=[
        Figure("cpu_us", "CPU per message", "µs", 1),
        Figure("store_us", "the store's", "µs", 1),
        Figure("p50_us", "p50", "µs", 0),
        Figure("p99_us", "p99", "µs", 0),
        Figure("share", "server's core", "%", 0),
    ],
    peers=["streamer", "centrifugo", "nchan", "ws", "starlette"],
    setup=setup,
    ask=ask,
    options=options,
    about="streamer and Centrifugo: CPU of a node that delivers what another node on "
    "the same store was given. The others are one process with no store, and have the "
    "cost of publishing in it.",
)

if __name__ == "__main__":
    main(QUESTION)

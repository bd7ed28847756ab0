"""
Connecting: what a connection costs to open, and to hold while nothing happens.

Every reader is another player with a token of its own. A second kind of measurement,
the rate, is with so many handshakes under way at all times.
"""

from __future__ import annotations

import argparse

from .peers import Setup
from .run.harness import Answer, Figure, Options, Question, Turn, main

__all__ = ["QUESTION"]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000, help="readers (1000)")
    parser.add_argument("--transport", choices=["ws", "sse"], default="ws")
    parser.add_argument(
        "--in-flight", type=int, default=64, help="handshakes under way (64)"
    )
    parser.add_argument(
        "--sources", type=int, default=4, help="addresses they come from (4)"
    )
    parser.add_argument(
        "--idle", type=float, default=3, help="seconds until memory is read (3)"
    )


def setup(options: Options) -> Setup:
    return Setup(connections=options.connections, players=options.connections)


def ask(turn: Turn) -> Answer:
    options = turn.options
    count = options.connections
    # What the first connections make the server load is not the others' price.
    turn.open_readers(options.transport, 20, 20)
    turn.load.close()
    turn.load.rest(0.5)
    before = turn.peer.usage()
    with turn.watch() as watch:
        opened = turn.open_readers(
            options.transport,
            count,
            count,
            sampled=0,
            in_flight=options.in_flight,
            sources=options.sources,
        )
    turn.note_load(opened)
    turn.say("holding still")
    with turn.watch("idle") as idle:
        turn.load.rest(options.idle)
    held = turn.peer.usage()
    return {
        "cpu_us": watch.server_cpu_s / count * 1e6,
        "store_us": watch.store_cpu_s / count * 1e6,
        "per_s": count / opened["seconds"],
        **turn.note_latency("open", opened["took_us"]),
        "rss_kib": (held.server_rss - before.server_rss) / count / 1024,
        "idle": idle.server_cpu_s / idle.wall_s * 100,
    }


QUESTION = Question(
    name="connect",
    title="Opening {connections:,} connections over {transport}, {in_flight} at a time",
    figures=[
        Figure("cpu_us", "CPU per connect", "µs", 0),
        Figure("store_us", "the store's", "µs", 0),
        Figure("per_s", "a second", "", 0, lower_is_better=False),
        Figure("p50_us", "p50", "µs", 0),
        Figure("p99_us", "p99", "µs", 0),
        Figure("rss_kib", "RSS when idle", "KiB", 1),
        Figure("idle", "CPU when idle", "%", 1),
    ],
    peers=["streamer", "starlette", "nchan", "ws", "centrifugo"],
    setup=setup,
    ask=ask,
    options=options,
    about="Each connection is another player's, with a token that is checked and a "
    "lease that is taken; the others check nothing. The kernel's memory is not in RSS.",
)

if __name__ == "__main__":
    main(QUESTION)

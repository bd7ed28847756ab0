"""
Fan-out: one message to N readers.

Where a server knows players, each reader is one of its own, and the message goes to
everyone; where it knows channels, all are in one. ``--to player`` lets all readers be
connections of a single player instead. Three measurements: at a fixed rate,
what a delivery costs the server; with two messages under way at all times, how much it
can; at half of that, how late messages are.
"""

from __future__ import annotations

import argparse

from .peers import Setup
from .run.harness import Answer, Figure, Options, Question, Turn, late_us, main

__all__ = ["QUESTION"]

SIZE = 200
# Below what the slowest of them can: a server that falls behind sends several messages
# in one go, and looks cheaper for it.
DELIVERIES_PER_S = 20_000
MESSAGES_PER_S_MAX = 100
SAMPLED_MAX = 200


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000, help="readers (1000)")
    parser.add_argument("--transport", choices=["ws", "sse"], default="ws")
    parser.add_argument("--to", choices=["everyone", "player"], default="everyone")
    parser.add_argument(
        "--rate",
        type=float,
        default=0,
        help="messages a second (20,000 / connections, at most 100)",
    )


def setup(options: Options) -> Setup:
    players = options.connections if options.to == "everyone" else 1
    return Setup(connections=options.connections, players=players)


def ask(turn: Turn) -> Answer:
    count = turn.options.connections
    if turn.options.to == "everyone":
        templates, players = turn.peer.broadcast(SIZE, count)
    else:
        templates, players = turn.peer.publish(SIZE), 1
    with turn.watch() as opening:
        sampled = max(1, count // SAMPLED_MAX)
        turn.open_readers(turn.options.transport, count, players, sampled=sampled)
    order = {"address": turn.peer.address, "templates": templates}
    seconds = turn.options.seconds
    turn.say("warming up")
    turn.note_load(turn.load.publish(**order, rate=10, seconds=1))

    turn.say("what a delivery costs")
    rate = turn.options.rate or min(DELIVERIES_PER_S / count, MESSAGES_PER_S_MAX)
    with turn.watch() as watch:
        steady = turn.load.publish(**order, rate=rate, seconds=seconds)
    turn.note_load(steady)
    _require_all(steady, count)

    turn.say("how much it can")
    full = turn.load.publish(**order, window=2, seconds=seconds)
    turn.note_load(full)
    _require_all(full, count)
    per_s = full["sent"] / full["wall_s"]

    turn.say("how late messages are at half of that")
    half = turn.load.publish(**order, rate=per_s / 2, seconds=seconds)
    turn.note_load(half)
    _require_all(half, count)
    return {
        "cpu_us": watch.server_cpu_s / steady["received"] * 1e6,
        "per_s": full["received"] / full["wall_s"],
        **turn.note_latency("receipt", late_us(half)),
        "rss_kib": opening.server_rss / count / 1024,
    }


def _require_all(facts: dict[str, int], count: int) -> None:
    if facts["received"] != facts["sent"] * count:
        raise RuntimeError(
            f"{facts['sent']:,} messages to {count:,} readers, "
            f"{facts['received']:,} deliveries"
        )


QUESTION = Question(
    name="fanout",
    title="One message of 200 bytes to {to}: {connections:,} readers over {transport}",
    figures=[
        Figure("cpu_us", "CPU per delivery", "µs", 2),
        Figure("per_s", "deliveries a second, at most", "", 0, lower_is_better=False),
        Figure("p50_us", "p50 at half of it", "µs", 0),
        Figure("p99_us", "p99", "µs", 0),
        Figure("rss_kib", "RSS per connection", "KiB", 1),
    ],
    peers=["streamer", "nchan", "ws", "starlette", "centrifugo", "floor"],
    setup=setup,
    ask=ask,
    options=options,
    about="CPU is the server's, with the cost of publishing in it, its store apart. "
    "200 bytes is the text alone; what each server wraps around it comes on top. "
    "RSS is right after opening.",
)

if __name__ == "__main__":
    main(QUESTION)

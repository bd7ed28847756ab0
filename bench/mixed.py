"""
Mixed: an afternoon of a game, all at once.

Idle readers hold connections; messages go to single players; others read pages and
come with an ETag. All by timetable, so what one kind of work does to another shows in
the latencies.
"""

from __future__ import annotations

import argparse

from .load.handle import Load
from .peers import Setup, Streamer
from .run.harness import Answer, Figure, Options, Question, Turn, late_us, main
from .run.processes import cores

__all__ = ["QUESTION"]

SIZE = 200


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--connections", type=int, default=1_000, help="readers (1000)")
    add("--messages", type=float, default=200, help="published a second (200)")
    add("--pages", type=float, default=100, help="pages read a second (100)")


def setup(options: Options) -> Setup:
    return Setup(connections=options.connections, players=options.connections)


def ask(turn: Turn) -> Answer:
    options, peer = turn.options, turn.peer
    assert isinstance(peer, Streamer), "only our own protocol is known here"
    count = options.connections
    seconds = options.seconds * 2
    readers = Load(1, set() if options.no_pin else cores()[1])
    try:
        turn.open_readers("ws", count, count)
        pages = [[peer.page(number)] for number in range(min(count, 500))]
        turn.say("everything at once")
        with turn.watch() as watch:
            readers.begin(
                "publish",
                address=peer.address,
                templates=pages,
                per_message=0,
                connections=8,
                rate=options.pages,
                seconds=seconds,
            )
            sent = turn.load.publish(
                address=peer.address,
                templates=peer.publish(SIZE),
                per_message=1,
                players=count,
                connections=8,
                rate=options.messages,
                seconds=seconds,
            )
            read = readers.end()
    finally:
        readers.stop()
    turn.note_load(sent)
    turn.note_load({**read, "load_shares": [read["load_cpu_s"] / read["wall_s"]]})
    receipt = turn.note_latency("receipt", late_us(sent))
    page = turn.note_latency("page", read["took_us"])
    publish = turn.note_latency("publish", sent["took_us"])
    return {
        "share": watch.server_cpu_s / watch.wall_s * 100,
        "store": watch.store_cpu_s / watch.wall_s * 100,
        "receipt_p50_us": receipt["p50_us"],
        "receipt_p99_us": receipt["p99_us"],
        "publish_p99_us": publish["p99_us"],
        "page_p50_us": page["p50_us"],
        "page_p99_us": page["p99_us"],
    }


QUESTION = Question(
    name="mixed",
    title="{connections:,} readers, {messages:,.0f} messages and {pages:,.0f} pages a "
    "second",
    figures=[
        Figure("share", "server's core", "%", 0),
        Figure("store", "the store's", "%", 0),
        Figure("receipt_p50_us", "receipt p50", "µs", 0),
        Figure("receipt_p99_us", "p99", "µs", 0),
        Figure("publish_p99_us", "publish p99", "µs", 0),
        Figure("page_p50_us", "page p50", "µs", 0),
        Figure("page_p99_us", "p99", "µs", 0),
    ],
    peers=["streamer"],
    setup=setup,
    ask=ask,
    options=options,
    about="Latencies count from the time at which a thing was due.",
)

if __name__ == "__main__":
    main(QUESTION)

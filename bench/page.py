"""
Pages: the first twenty of an inbox, or word that nothing has changed (304).

Two measurements: with so many requests under way at all times, how many a second; at
half of that, how long one takes.
"""

from __future__ import annotations

import argparse
import http.client

from .peers import Peer, Setup
from .run.harness import Answer, Figure, LoadFailed, Options, Question, Turn, main

__all__ = ["QUESTION"]

SIZE = 200
KEPT = 30


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--unchanged", action="store_true", help="ask for a 304")
    parser.add_argument("--players", type=int, default=100, help="in turn (100)")
    parser.add_argument(
        "--concurrency", type=int, default=16, help="requests under way (16)"
    )


def setup(options: Options) -> Setup:
    return Setup(players=options.players, stored=True)


def ask(turn: Turn) -> Answer:
    options, peer = turn.options, turn.peer
    turn.say("filling inboxes")
    turn.note_load(
        turn.load.publish(
            address=peer.address,
            templates=peer.publish_stored(SIZE, options.players, 1),
            players=options.players,
            connections=16,
            window=16,
            seconds=60,
            count=KEPT * options.players,
        )
    )
    etags = [""] * options.players
    if options.unchanged:
        etags = [_etag(peer, number) for number in range(options.players)]
    requests = [[peer.page(number, etag=etag)] for number, etag in enumerate(etags)]
    order = {
        "address": peer.address,
        "templates": requests,
        "connections": options.concurrency,
    }
    turn.say("warming up")
    turn.note_load(turn.load.publish(**order, rate=50, seconds=1))

    turn.say("how many a second")
    with turn.watch() as watch:
        full = turn.load.publish(
            **order, window=options.concurrency, seconds=options.seconds
        )
    turn.note_load(full)
    wanted = "304" if options.unchanged else "200"
    if set(full["statuses"]) != {wanted}:
        raise LoadFailed(f"answers were to be {wanted}: {full['statuses']}")

    turn.say("how long one takes at half of that")
    rate = full["answered"] / full["wall_s"] / 2
    half = turn.load.publish(**order, rate=rate, seconds=options.seconds)
    turn.note_load(half)
    return {
        "cpu_us": watch.server_cpu_s / full["answered"] * 1e6,
        "store_us": watch.store_cpu_s / full["answered"] * 1e6,
        "per_s": full["answered"] / full["wall_s"],
        **turn.note_latency("answer", half["took_us"]),
    }


def _etag(peer: Peer, number: int) -> str:
    head, _, _ = peer.page(number).decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    connection = http.client.HTTPConnection(*peer.address, timeout=10)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        connection.request("GET", first.split()[1], headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.headers["ETag"] or ""
    finally:
        connection.close()


QUESTION = Question(
    name="page",
    title="The first page of 20, {concurrency} requests at a time",
    figures=[
        Figure("cpu_us", "CPU per request", "µs", 0),
        Figure("store_us", "the store's", "µs", 0),
        Figure("per_s", "a second, at most", "", 0, lower_is_better=False),
        Figure("p50_us", "p50 at half of it", "µs", 0),
        Figure("p99_us", "p99", "µs", 0),
    ],
    peers=["streamer", "starlette"],
    setup=setup,
    ask=ask,
    options=options,
    about="Starlette: an endpoint that checks the same kind of token with joserfc and "
    "makes one read; its store has no read marks. With --unchanged the request carries "
    "the ETag, and the answer is 304.",
)

if __name__ == "__main__":
    main(QUESTION)

"""
Storm: N readers are cut off at once, and all come back at once.

They behave as the protocol asks: a random wait of up to half a second, ``Retry-After``,
growing back-off, the cursor of the last message. Meanwhile more is published. Asked is
how long it takes until everybody is back and has everything; anything lost or twice is
counted. With ``--kill`` it is the server that is killed and started again.
"""

from __future__ import annotations

import argparse
import time

from .load.handle import Load
from .peers import Setup, Streamer
from .peers.base import Parts
from .run.harness import Answer, Figure, LoadFailed, Options, Question, Turn, main

__all__ = ["QUESTION"]

SIZE = 200
PER_REQUEST = 1_000
SPREAD_S = 0.5
WITHIN_S = 120.0
ATTEMPTS = 20
REPEAT_S = 0.5


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=int, default=1_000, help="readers (1000)")
    parser.add_argument(
        "--messages", type=int, default=3, help="published to each meanwhile (3)"
    )
    parser.add_argument(
        "--connects-per-s", type=int, default=1_500, help="the server's limit (1500)"
    )
    parser.add_argument("--kill", action="store_true", help="kill the server instead")


def setup(options: Options) -> Setup:
    count = options.connections
    limit = (("STREAMER_CONNECTS_PER_S_MAX", str(options.connects_per_s)),)
    return Setup(connections=count, players=count, env=limit)


class Crowd:
    """
    Careful readers, a player each, and what has been published to all of them.

    Each publication is a number; a message of it goes to everybody.
    """

    def __init__(self, turn: Turn) -> None:
        peer = turn.peer
        assert isinstance(peer, Streamer), "only our own protocol is known here"
        self.peer = peer
        self.turn = turn
        self.count = turn.options.connections
        self.published = 0
        self.repeated = 0

    def settle(self) -> None:
        """Connect everybody, gently, and check that messages arrive."""
        self.turn.say(f"opening {self.count:,} readers")
        plan = {
            "address": self.peer.address,
            "requests": self.peer.resuming_readers(self.count),
            "in_flight": 64,
        }
        facts = self.turn.load.ask("settle", plan=plan, expected=0, within_s=WITHIN_S)
        if not facts["done"]:
            raise LoadFailed(f"the readers could not be opened: {facts['refused']}")

    def publish(self, load: Load, messages: int) -> None:
        """Publish to everybody, so many times."""
        for number in range(self.published, self.published + messages):
            for request in self.peer.publish_many(
                SIZE, self.count, PER_REQUEST, number=number
            ):
                self._send(load, request)
        self.published += messages

    def _send(self, load: Load, request: Parts) -> None:
        """Send a request until it is answered with 200, as a backend would."""
        for attempt in range(ATTEMPTS):
            if attempt:
                self.repeated += 1
                time.sleep(REPEAT_S)
            facts = load.publish(
                address=self.peer.address,
                templates=[request],
                window=1,
                seconds=60,
                count=1,
            )
            if facts["statuses"] == {"200": 1}:
                return
            if set(facts["statuses"]) - {"503"}:
                break
        raise LoadFailed(f"publishing: {facts['failed'] or facts['refusal']}")

    def come(self, spread_s: float) -> None:
        """Let everybody come back; `Turn.load.end` says how it went."""
        self.turn.load.begin(
            "come", expected=self.published, spread_s=spread_s, within_s=WITHIN_S
        )


def ask(turn: Turn) -> Answer:
    crowd = Crowd(turn)
    publisher = Load(1, set())
    try:
        crowd.settle()
        crowd.publish(publisher, 1)
        crowd.come(0)
        turn.load.end()

        turn.say("the storm")
        with turn.watch() as watch:
            turn.load.ask("drop")
            if turn.options.kill:
                crowd.peer.restart()
            expected = crowd.published + turn.options.messages
            turn.load.begin(
                "come", expected=expected, spread_s=SPREAD_S, within_s=WITHIN_S
            )
            begun_s = time.monotonic()
            crowd.publish(publisher, turn.options.messages)
            published_s = time.monotonic() - begun_s
            facts = turn.load.end()
    finally:
        publisher.stop()
    found = answer(turn, facts, watch.server_cpu_s, crowd.count)
    if turn.options.kill:
        del found["cpu_us"]  # The process that it would be counted from is gone.
    return {**found, "published_s": published_s, "repeated": crowd.repeated}


def answer(turn: Turn, facts: dict[str, object], cpu_s: float, count: int) -> Answer:
    """Return what came of a crowd's return."""
    if not facts["done"]:
        told = {k: v for k, v in facts.items() if isinstance(v, int | float | dict)}
        raise LoadFailed(f"not all came back: {told}")
    turn.shares.append(facts["load_cpu_s"] / facts["wall_s"])
    latency = turn.note_latency("back", facts["took_us"])
    return {
        "all_s": facts["wall_s"],
        "p50_s": latency["p50_us"] / 1e6,
        "p99_s": latency["p99_us"] / 1e6,
        "lost": facts["lost"],
        "doubled": facts["doubled"],
        "gaps": facts["gaps"],
        "refused": sum(facts["refused"].values()),
        "cpu_us": cpu_s / count * 1e6,
    }


FIGURES = [
    Figure("all_s", "until all are back", "s", 2),
    Figure("p50_s", "p50", "s", 2),
    Figure("p99_s", "p99", "s", 2),
    Figure("lost", "lost", "", 0),
    Figure("doubled", "doubled", "", 0),
    Figure("gaps", "gaps", "", 0),
    Figure("refused", "refusals", "", 0),
    Figure("cpu_us", "CPU per reader", "µs", 0),
]

QUESTION = Question(
    name="storm",
    title="{connections:,} readers cut off at once",
    figures=[
        *FIGURES,
        Figure("published_s", "publishing took", "s", 2),
        Figure("repeated", "publishes repeated", "", 0),
    ],
    peers=["streamer"],
    setup=setup,
    ask=ask,
    options=options,
    about="Back means: connected, and everything has arrived that was published until "
    "the end; publishing begins with the storm and is repeated on a 503, with its "
    "Idempotency-Key. The server lets in as many a second as its setting says, and "
    "refuses others with Retry-After; this is part of the time.",
)

if __name__ == "__main__":
    main(QUESTION)

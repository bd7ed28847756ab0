"""Unicast, compared: see `streamer.bench.scenarios.unicast`."""

from __future__ import annotations

import dataclasses

from streamer.bench.scenarios import unicast

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "centrifugo", "nchan", "ws", "starlette")

ABOUT = (
    " streamer and Centrifugo run as two nodes on one store, and CPU is "
    "that of the node that delivers. The others are one process without a "
    "store, and their CPU includes publishing."
)
SCENARIO = dataclasses.replace(unicast.SCENARIO, about=unicast.SCENARIO.about + ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

"""Connecting, compared: see `streamer.bench.scenarios.connect`."""

from __future__ import annotations

import dataclasses

from streamer.bench.scenarios import connect

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "starlette", "nchan", "ws", "centrifugo")

ABOUT = (
    " Centrifugo verifies a token as well, and notes who is present in its store. The "
    "others do neither."
)
SCENARIO = dataclasses.replace(connect.SCENARIO, about=connect.SCENARIO.about + ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

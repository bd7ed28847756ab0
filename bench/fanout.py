"""Fan-out, compared: see `streamer.bench.scenarios.fanout`."""

from __future__ import annotations

from streamer.bench.scenarios import fanout

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "nchan", "ws", "starlette", "centrifugo", "floor")

SCENARIO = fanout.SCENARIO

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

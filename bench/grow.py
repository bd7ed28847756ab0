"""Growth, of streamer alone: see `streamer.bench.scenarios.grow`."""

from __future__ import annotations

from streamer.bench.scenarios.grow import SCENARIO

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer",)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

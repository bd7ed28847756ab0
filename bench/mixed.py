"""Mixed load: see `streamer.bench.scenarios.mixed`."""

from __future__ import annotations

from streamer.bench.scenarios import mixed

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer",)

SCENARIO = mixed.SCENARIO

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

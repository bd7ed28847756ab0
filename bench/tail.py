"""Pages beside broadcasts: see `streamer.bench.scenarios.tail`."""

from __future__ import annotations

from streamer.bench.scenarios import tail

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer",)

SCENARIO = tail.SCENARIO

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

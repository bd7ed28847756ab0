"""Shards: what operations cost on more of them; see `bench.run.growth`."""

from __future__ import annotations

from .run.comparison import compare
from .run.growth import growth

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("shards-1", "shards-1-again", "shards-2", "shards-3")

ABOUT = (
    "One node, on a Redis Cluster of 1, 2 and 3 primaries; the first is there twice, "
    "as the control. All are under load at the same time. CPU of the shards is that of "
    "all together, under a load that grows with them; CPU of the node is under the "
    "same load for all. A broadcast is one entry in one shard."
)
SCENARIO = growth("shards", "shards", "shard", ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

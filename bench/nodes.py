"""Nodes: what operations cost with more of them; see `bench.run.growth`."""

from __future__ import annotations

from .run.comparison import compare
from .run.growth import growth

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("nodes-1", "nodes-1-again", "nodes-2")

ABOUT = (
    "1 and 2 nodes on one shard; the first is there twice, as the control. All are "
    "under load at the same time. Requests go to the nodes in turn, and each has an "
    "equal part of the readers, so half of what a node stores is for readers of the "
    "other. CPU of the nodes is that of both together, under a load that grows with "
    "them; CPU of the shard is under the same load for all."
)
SCENARIO = growth("nodes", "nodes", "node", ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

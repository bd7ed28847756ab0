"""Workers: what operations cost with more of them; see `bench.run.growth`."""

from __future__ import annotations

from .run.comparison import compare
from .run.growth import Parts, growth

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("workers-1", "workers-1-again", "workers-2", "workers-4")

ABOUT = (
    "One node with 1, 2 and 4 workers, on its embedded store; the first is there "
    "twice, as the control. All are under load at the same time. The kernel spreads "
    "connections over the workers, those of publishers (16 per worker) and those of "
    "readers, so with 4 workers three quarters of what one stores is for readers of "
    "others. CPU of the workers is that of all together, under a load that grows with "
    "them, without that of their supervisor, which one worker does not have; CPU of "
    "the store is under the same load for all. What is used at rest, in CPU and in "
    "memory, is that of all workers together. A broadcast is published once for all "
    "readers, so the more there are, the less of that is in a delivery."
)
SCENARIO = growth(
    "workers", "workers", "worker", ABOUT, parts=Parts("worker", "store", "supervisor")
)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

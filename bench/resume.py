"""Resuming: see `streamer.bench.scenarios.resume`."""

from __future__ import annotations

from streamer.bench.scenarios import resume

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "centrifugo")

SCENARIO = resume.SCENARIO

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

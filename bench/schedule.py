"""Schedules: see `streamer.bench.scenarios.schedule`."""

from __future__ import annotations

from streamer.bench.scenarios import schedule

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer",)

SCENARIO = schedule.SCENARIO

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

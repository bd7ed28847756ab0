"""Pages, compared: see `streamer.bench.scenarios.page`."""

from __future__ import annotations

import dataclasses

from streamer.bench.scenarios import page

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "starlette")

ABOUT = (
    " Starlette is an endpoint that verifies the same kind of token with "
    "joserfc and makes one read; its store has no read marks."
)
SCENARIO = dataclasses.replace(page.SCENARIO, about=page.SCENARIO.about + ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

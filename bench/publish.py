"""Publishing, compared: see `streamer.bench.scenarios.publish`."""

from __future__ import annotations

import dataclasses

from streamer.bench.scenarios import publish

from .run.comparison import compare

__all__ = ["PEERS", "SCENARIO"]

PEERS = ("streamer", "centrifugo", "starlette")

ABOUT = (
    " Starlette is an endpoint that parses the body and calls one script. All are on "
    "a store that syncs as the embedded one does."
)
SCENARIO = dataclasses.replace(publish.SCENARIO, about=publish.SCENARIO.about + ABOUT)

if __name__ == "__main__":
    compare(SCENARIO, PEERS)

"""
What the ground crew can ask, and what it is answered.

Decides nothing: it says in the words of `streamer.contract` what `routes` holds.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ...contract.operation import NO_STORE, Operation, ResponseSpec, Scheme, Surface

__all__ = ["OPERATIONS"]


class Alive(msgspec.Struct, frozen=True):
    status: Literal["alive"]


class Ready(msgspec.Struct, frozen=True):
    """Which process has answered, and what a publish survives with it."""

    status: Literal["ready"]
    node: str
    pid: int
    durability: str


class NotReady(msgspec.Struct, frozen=True):
    status: Literal["not ready"]
    reason: str
    node: str
    pid: int
    durability: str


class Absent(msgspec.Struct, frozen=True):
    """A problem document."""

    type: Literal["about:not-found"]
    title: str
    status: Literal[404]
    detail: str


SCRAPER: Final = Scheme(
    "metrics",
    {"type": "http", "scheme": "bearer", "description": "The `metrics_token`."},
)

ALIVE: Final = Operation(
    method="GET",
    path="/healthz",
    name="alive",
    summary="Ask whether the process answers",
    responses=(ResponseSpec(200, "It does.", Alive, (NO_STORE,)),),
)
READY: Final = Operation(
    method="GET",
    path="/readyz",
    name="ready",
    summary="Ask whether a publish would be stored and delivered",
    responses=(
        ResponseSpec(200, "It would.", Ready, (NO_STORE,)),
        ResponseSpec(503, "It would not, and why.", NotReady, (NO_STORE,)),
    ),
)
METRICS: Final = Operation(
    method="GET",
    path="/metrics",
    name="metrics",
    summary="Scrape the metrics of this process",
    description="Where the setting `metrics_token` is set.",
    responses=(
        ResponseSpec(200, "For Prometheus.", str, (NO_STORE,), media="text/plain"),
        ResponseSpec(
            404,
            "Not for whoever asks.",
            Absent,
            media="application/problem+json",
        ),
    ),
    security=(SCRAPER,),
)
OPERATIONS: Final = Surface(
    name="operations",
    title="Operations",
    description="For probes and people.",
    operations=(
        ALIVE,
        READY,
        METRICS,
    ),
)

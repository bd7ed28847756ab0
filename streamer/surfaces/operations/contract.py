"""
The contract of the operational endpoints: probes and metrics.

Decides nothing. Declares in the terms of `streamer.contract` what `routes` implements.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ...contract.operation import NO_STORE, Operation, ResponseSpec, Scheme, Surface

__all__ = ["OPERATIONS"]


class Alive(msgspec.Struct, frozen=True):
    status: Literal["alive"]


class Ready(msgspec.Struct, frozen=True):
    """
    The process that responded, and the durability and the memory of its store.

    `memory` is ``ok``, ``nearly full`` or ``full``. On a full store the node is ready:
    it serves readers, and refuses publishes with 503.
    """

    status: Literal["ready"]
    node: str
    pid: int
    durability: str
    memory: str


class NotReady(msgspec.Struct, frozen=True):
    status: Literal["not ready"]
    reason: str
    node: str
    pid: int
    durability: str
    memory: str


class Absent(msgspec.Struct, frozen=True):
    """A problem document."""

    type: Literal["about:not-found"]
    title: str
    status: Literal[404]
    detail: str


SCRAPER: Final = Scheme(
    "metrics",
    {
        "type": "http",
        "scheme": "bearer",
        "description": "The value of the setting `metrics_token`.",
    },
)

ALIVE: Final = Operation(
    method="GET",
    path="/healthz",
    name="alive",
    summary="Check whether the process responds",
    responses=(ResponseSpec(200, "The process responds.", Alive, (NO_STORE,)),),
)
READY: Final = Operation(
    method="GET",
    path="/readyz",
    name="ready",
    summary="Check whether the node is ready",
    responses=(
        ResponseSpec(
            200, "Ready: what the store accepts is delivered.", Ready, (NO_STORE,)
        ),
        ResponseSpec(503, "Not ready, with the reason.", NotReady, (NO_STORE,)),
    ),
)
METRICS: Final = Operation(
    method="GET",
    path="/metrics",
    name="metrics",
    summary="Retrieve the metrics of this process",
    description="Available if the setting `metrics_token` is set.",
    responses=(
        ResponseSpec(
            200,
            "Metrics in Prometheus' text format.",
            str,
            (NO_STORE,),
            media="text/plain",
        ),
        ResponseSpec(
            404,
            "The token is missing or wrong, or `metrics_token` is not set.",
            Absent,
            media="application/problem+json",
        ),
    ),
    security=(SCRAPER,),
)
OPERATIONS: Final = Surface(
    name="operations",
    title="Operations",
    description="Health checks and metrics.",
    operations=(
        ALIVE,
        READY,
        METRICS,
    ),
)

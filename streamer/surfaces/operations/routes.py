"""
What the ground crew asks: is it alive, would it deliver.

``/healthz`` says that the process answers. ``/readyz`` says 200 only while what is
published comes back to this node, and the node is not going away; else 503 with the
reason. ``/readyz`` also tells which process has answered, and what a publish survives.
``/metrics`` is there for whoever has its token, and for nobody else.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ...metrics.exposition import CONTENT_TYPE, render
from ...metrics.scraping import Collect

__all__ = ["Operations"]

_encode = msgspec.json.Encoder().encode


class Operations:
    """
    The two probes, and the metrics.

    Args:
        unready: Says why this node is not ready, None when it is.
        facts: Gives what is said besides.
        collect: Gives the metrics.
        metrics_token: Who bears it may have them; empty is nobody.

    """

    def __init__(
        self,
        unready: Callable[[], str | None],
        facts: Callable[[], Mapping[str, str | int]],
        collect: Collect,
        *,
        metrics_token: str = "",
    ) -> None:
        self._unready = unready
        self._facts = facts
        self._collect = collect
        self._bearer = f"Bearer {metrics_token}".encode() if metrics_token else b""

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            *([Route("/metrics", self.metrics)] if self._bearer else []),
        ]

    async def healthz(self, request: Request) -> Response:
        return _answer(200, {"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        reason = self._unready()
        if reason is None:
            return _answer(200, {"status": "ready", **self._facts()})
        body = {"status": "not ready", "reason": reason, **self._facts()}
        return _answer(503, body)

    async def metrics(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._bearer):
            # As if it were not there.
            raise HTTPException(404)
        return Response(
            render(self._collect()),
            headers={"Cache-Control": "no-store"},
            media_type=CONTENT_TYPE,
        )


def _answer(status: int, body: Mapping[str, str | int]) -> Response:
    return Response(
        _encode(body),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )

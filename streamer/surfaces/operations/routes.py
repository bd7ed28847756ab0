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
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ...contract.binding import bind
from ...contract.operation import Operation
from ...metrics.exposition import CONTENT_TYPE, render
from ...metrics.scraping import Collect
from . import contract

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
        bound: list[tuple[Operation, ASGIApp]] = [
            (contract.ALIVE, self.healthz),
            (contract.READY, self.readyz),
        ]
        if self._bearer:
            bound.append((contract.METRICS, self.metrics))
        return bind(bound)

    async def healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(200, {"status": "alive"})(scope, receive, send)

    async def readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._unready()
        if reason is None:
            answer = _answer(200, {"status": "ready", **self._facts()})
        else:
            body = {"status": "not ready", "reason": reason, **self._facts()}
            answer = _answer(503, body)
        await answer(scope, receive, send)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._bearer):
            # As if it were not there.
            raise HTTPException(404)
        answer = Response(
            render(self._collect()),
            headers={"Cache-Control": "no-store"},
            media_type=CONTENT_TYPE,
        )
        await answer(scope, receive, send)


def _answer(status: int, body: Mapping[str, str | int]) -> Response:
    return Response(
        _encode(body),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )

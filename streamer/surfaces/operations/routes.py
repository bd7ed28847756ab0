"""
The operational endpoints: health checks and metrics.

``/healthz`` responds while the process does. ``/readyz`` responds 200 while a published
notification comes back to this node and the node is not draining, otherwise 503 with
the reason. It also identifies the process and states the durability of its store.
``/metrics`` requires a token; without it the path does not exist.
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
from ...errors import Defect, Unauthenticated
from ...metrics.exposition import CONTENT_TYPE, render
from ...metrics.scraping import Collect
from ...service.node.request_context import note_failed_authentication
from . import contract

__all__ = ["Operations"]

_encode = msgspec.json.Encoder().encode


class Operations:
    """
    Health checks and metrics, with their routes.

    Args:
        unready: Returns why this node is not ready, None if it is ready.
        facts: Returns additional members of the response.
        collect: Returns the metrics.
        metrics_token: The token that ``/metrics`` requires. If it is empty, the path
            does not exist.

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
        await _json(200, {"status": "alive"})(scope, receive, send)

    async def readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self._unready()
        if reason is None:
            response = _json(200, {"status": "ready", **self._facts()})
        else:
            body = {"status": "not ready", "reason": reason, **self._facts()}
            response = _json(503, body)
        await response(scope, receive, send)

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        credential = Headers(scope=scope).get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(credential, self._bearer):
            defect = Defect.UNKNOWN_KEY if credential else Defect.MISSING
            note_failed_authentication(Unauthenticated(defect))
            # As if the path did not exist.
            raise HTTPException(404)
        response = Response(
            render(self._collect()),
            headers={"Cache-Control": "no-store"},
            media_type=CONTENT_TYPE,
        )
        await response(scope, receive, send)


def _json(status: int, body: Mapping[str, str | int]) -> Response:
    return Response(
        _encode(body),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )

"""
What the ground crew asks: is it alive, would it deliver.

``/healthz`` says that the process answers. ``/readyz`` says 200 only while what is
published comes back to this node, and the node is not going away; else 503 with the
reason.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

__all__ = ["Operations"]

_encode = msgspec.json.Encoder().encode


class Operations:
    """
    The two probes.

    Args:
        unready: Says why this node is not ready, None when it is.

    """

    def __init__(self, unready: Callable[[], str | None]) -> None:
        self._unready = unready

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
        ]

    async def healthz(self, request: Request) -> Response:
        return _answer(200, {"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        reason = self._unready()
        if reason is None:
            return _answer(200, {"status": "ready"})
        return _answer(503, {"status": "not ready", "reason": reason})


def _answer(status: int, body: dict[str, str]) -> Response:
    return Response(
        _encode(body),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )

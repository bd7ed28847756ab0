"""
What the ground crew asks: is it alive, would it deliver.

``/healthz`` says that the process answers. ``/readyz`` says 200 only while what is
published comes back to this node, and the node is not going away; else 503 with the
reason. ``/readyz`` also tells which process has answered, and what a publish survives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        facts: Gives what is said besides.

    """

    def __init__(
        self,
        unready: Callable[[], str | None],
        facts: Callable[[], Mapping[str, str | int]],
    ) -> None:
        self._unready = unready
        self._facts = facts

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
            return _answer(200, {"status": "ready", **self._facts()})
        body = {"status": "not ready", "reason": reason, **self._facts()}
        return _answer(503, body)


def _answer(status: int, body: Mapping[str, str | int]) -> Response:
    return Response(
        _encode(body),
        status,
        headers={"Cache-Control": "no-store"},
        media_type="application/json",
    )

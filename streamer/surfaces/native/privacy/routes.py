"""
The native surface's audit log.

Decides only which service an operation calls. Knows Starlette, the service, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response
from ....core.access.rights import Caller
from ....service.access.authenticator import Authenticator
from ....service.privacy.audit import Audit
from ....transports.web.callers import Callers
from ..common.endpoints import endpoints
from ..common.parameters import LIMIT
from . import contract, wire

__all__ = ["NativePrivacy"]


class NativePrivacy:
    """The audit log of an app on the native surface, with its routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        audit: Audit,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._audit = audit

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind((contract.AUDIT, self.audit))

    async def audit(self, request: Request, caller: Caller) -> Response:
        query = request.query_params
        limit = LIMIT.read(query)
        records = await self._audit.page(
            caller,
            before=wire.read_before(query),
            limit=limit + 1,
            player=wire.read_player(query),
            action=query.get("action", ""),
        )
        more = len(records) > limit
        return json_response(wire.encode_audit(records[:limit], more=more))

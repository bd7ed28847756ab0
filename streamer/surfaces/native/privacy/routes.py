"""
The native surface's audit log, and the export and erasure of players.

Decides only which service an operation calls. Knows Starlette, the service, and the
wire.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from ....contract.responses import json_response
from ....core.access.rights import Caller
from ....service.access.authenticator import Authenticator
from ....service.privacy.audit import Audit
from ....service.privacy.erasure import Erasing
from ....service.privacy.export import Exporting
from ....transports.web.callers import Callers
from ..common.endpoints import endpoints, player_of
from ..common.parameters import LIMIT, read_reason
from . import contract, wire

__all__ = ["NativePrivacy"]


class NativePrivacy:
    """The audit log, and the export and erasure of players, with their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        audit: Audit,
        erasing: Erasing,
        exporting: Exporting,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._audit = audit
        self._erasing = erasing
        self._exporting = exporting

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            (contract.AUDIT, self.audit),
            (contract.ERASE, self.erase),
            (contract.EXPORT, self.export),
        )

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

    async def erase(self, request: Request, caller: Caller) -> Response:
        body = await contract.ERASE_BODY.read(request)
        player = player_of(request, caller)
        erased = await self._erasing.erase(caller, player, reason=body.reason)
        return json_response(wire.encode_erased(erased))

    async def export(self, request: Request, caller: Caller) -> Response:
        reason = read_reason(request.query_params)
        player = player_of(request, caller)
        items = self._exporting.export(caller, player, reason=reason)
        # An error before the first item is still a response of its own.
        first = await anext(items)
        return StreamingResponse(
            wire.encode_items(first, items),
            media_type=contract.EXPORT_MEDIA,
            headers={"Cache-Control": "no-store"},
        )

"""
The native surface's streams, and the credentials that open them.

Decides only which service an operation calls. Knows Starlette, the services, and the
wires. The packages beside this module have the other operations. ``me`` in a path is
the player of the caller's token.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ...contract.binding import as_for_reader, bind, bind_websocket
from ...contract.responses import json_response
from ...core.access.rights import Caller
from ...errors import Error
from ...service.access.authenticator import Authenticator
from ...service.access.minting import TokenMint
from ...service.access.tickets import Tickets
from ...transports.streams.opening import StreamComponents
from ...transports.streams.sse import SseStream
from ...transports.streams.websocket import WebSocketStream
from ...transports.web.callers import Callers
from . import contract, credentials
from .common import problems
from .common.endpoints import endpoints

__all__ = ["Native"]

_SECRET: Final = {"Cache-Control": "no-store"}


class Native:
    """Streams and credentials of the native surface, with their routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        minting: TokenMint,
        tickets: Tickets,
        streams: StreamComponents,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._minting = minting
        self._tickets = tickets
        self._sse = SseStream(streams, refuse=_refuse)
        self._websocket = WebSocketStream(streams, refuse=_refuse)

    def routes(self) -> list[BaseRoute]:
        return [
            *bind_websocket(contract.STREAM, self._websocket),
            *bind([(contract.STREAM, self._sse)]),
            *endpoints(self._callers).bind(
                (contract.MINT_TOKEN, self.mint_token),
                (contract.ISSUE_TICKET, self.issue_ticket),
            ),
        ]

    async def mint_token(self, request: Request, caller: Caller) -> Response:
        body = await contract.TOKEN_BODY.read(request)
        minted = await self._minting.mint(
            caller,
            body.recipient(),
            permissions=body.permissions or (),
            topics=body.topics,
            ttl_s=body.ttl_s,
        )
        return json_response(credentials.encode_token(minted), headers=_SECRET)

    async def issue_ticket(self, request: Request, caller: Caller) -> Response:
        await contract.TICKET_BODY.read(request)
        ticket = await self._tickets.issue(caller)
        return json_response(credentials.encode_ticket(ticket), headers=_SECRET)


def _refuse(error: Error) -> Response:
    return problems.problem(as_for_reader(error))

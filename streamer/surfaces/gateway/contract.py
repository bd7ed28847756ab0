"""
The contract of the casino gateway's surface.

Decides nothing. Declares in the terms of `streamer.contract` what `routes`, `wire` and
`refusals` implement, with their types and limits.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from starlette.datastructures import Headers

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    NO_STORE,
    STREAMED,
    Body,
    Event,
    Operation,
    Parameter,
    ResponseSpec,
    Scheme,
    Surface,
    path,
    query,
)
from ...contract.refusals import (
    BODY,
    CONNECTING,
    CREDENTIAL,
    IN_FLIGHT,
    RIGHT,
    STORE,
    WRITE,
)
from ...errors import (
    Conflict,
    FieldError,
    ForeignOrigin,
    Invalid,
    NotFound,
    OverQuota,
    RateLimited,
    TooLate,
    Unsupported,
    UsedUp,
)
from . import refusals, wire

__all__ = ["GATEWAY"]


class GatewayListResponse(msgspec.Struct, frozen=True):
    status: Literal["Success"]
    data: wire.GatewayList


class GatewayMarkResponse(msgspec.Struct, frozen=True):
    status: Literal["Success"]
    data: wire.GatewayMessage


PLAYER_TOKEN: Final = Scheme(
    "gateway",
    {
        "type": "apiKey",
        "in": "header",
        "name": "x-auth-token",
        "description": "A player's token.",
    },
)
BRAND: Final = path("brand_id", str, "Id of the brand: the name of the app.")
VERSION: Final = path("version", str, "API version. Any value is accepted.")
PLAYER: Final = path("player_id", str, "Id of the token's player.", has_slashes=True)
ONLY_UNREAD: Final = query(
    "only_unread", wire.Boolean, "Return only unread notifications."
)
CALLER_ERRORS: Final = (*CREDENTIAL, *RIGHT)
MARK_BODY: Final = Body[wire.GatewayMarkBody](wire.GatewayMarkBody, wire.BODY_BYTES_MAX)
NO_BOOLEAN: Final = Invalid(
    FieldError(("query", "only_unread"), "must be true or false")
)
ACCEPT: Final = Unsupported("Accept", "text/event-stream")


def _list(path: str, name: str, *parameters: Parameter) -> Operation:
    return Operation(
        method="GET",
        path=f"/gateway{path}",
        name=name,
        summary="List notifications, newest first",
        description=f"Returns at most {wire.LIST_MAX:,} notifications.",
        parameters=(*parameters, ONLY_UNREAD),
        responses=(ResponseSpec(200, "The list.", GatewayListResponse, (NO_STORE,)),),
        refusals=(*CALLER_ERRORS, NO_BOOLEAN, *IN_FLIGHT, *STORE),
        security=(PLAYER_TOKEN,),
        other_paths=(path,),
    )


def _mark(path: str, name: str, *parameters: Parameter) -> Operation:
    return Operation(
        method="PATCH",
        path=f"/gateway{path}",
        name=name,
        summary="Mark notifications as read",
        description="Unknown ids are ignored. This operation is idempotent.",
        parameters=parameters,
        body=MARK_BODY,
        responses=(ResponseSpec(200, "Marked as read.", GatewayMarkResponse),),
        refusals=(*CALLER_ERRORS, *BODY, *IN_FLIGHT, *WRITE),
        security=(PLAYER_TOKEN,),
        other_paths=(path,),
    )


_ONE: Final = "/notifications/{version}/{brand_id}"
_OTHER: Final = f"{_ONE}/{{player_id}}"

LIST: Final = _list(_ONE, "list", VERSION, BRAND)
MARK_READ: Final = _mark(_ONE, "markRead", VERSION, BRAND)
LIST_OF_PLAYER: Final = _list(_OTHER, "listOfPlayer", VERSION, BRAND, PLAYER)
MARK_READ_OF_PLAYER: Final = _mark(_OTHER, "markReadOfPlayer", VERSION, BRAND, PLAYER)
STREAM: Final = Operation(
    method="GET",
    path="/gateway/sse/{brand_id}/stream",
    name="stream",
    summary="Open a stream of Server-Sent Events",
    description=("Requires `Accept: text/event-stream`. A stream cannot be resumed."),
    parameters=(BRAND,),
    responses=(
        ResponseSpec(
            200,
            "The frames of the stream.",
            Event,
            (STREAMED,),
            media="text/event-stream",
        ),
    ),
    refusals=(*CALLER_ERRORS, ACCEPT, *CONNECTING, *STORE),
    security=(PLAYER_TOKEN,),
)
GATEWAY: Final = Surface(
    name="gateway",
    title="Casino gateway",
    description="A casino gateway's lists, read marks and stream.",
    refuse=refusals.refusal,
    error_type=refusals.GatewayError,
    failed=refusals.failed(Headers()),
    not_utf8=refusals.no_route(NOT_UTF8, Headers()),
    never_raised=(
        ForeignOrigin,
        NotFound,
        Conflict,
        TooLate,
        RateLimited,
        UsedUp,
        OverQuota,
    ),
    operations=(
        LIST,
        MARK_READ,
        LIST_OF_PLAYER,
        MARK_READ_OF_PLAYER,
        STREAM,
    ),
)

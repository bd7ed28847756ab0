"""
What the gateway's surface can be asked, and what it answers.

Decides nothing: it says in the words of `streamer.contract` what `routes` and `wire`
hold, with their own types and limits.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from starlette.datastructures import Headers

from ...contract.operation import (
    NO_STORE,
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
BRAND: Final = path("brand_id", str, "The app.")
VERSION: Final = path("version", str, "Any.")
PLAYER: Final = path("player_id", str, "The token's own player.", has_slashes=True)
ONLY_UNREAD: Final = query("only_unread", wire.Boolean, "Leave out what was read.")
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
        description=f"At most {wire.LIST_MAX:,}.",
        parameters=(*parameters, ONLY_UNREAD),
        responses=(
            ResponseSpec(200, "All of them.", GatewayListResponse, (NO_STORE,)),
        ),
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
        description="Unknown ids are ignored.",
        parameters=parameters,
        body=MARK_BODY,
        responses=(ResponseSpec(200, "They are.", GatewayMarkResponse),),
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
    summary="Listen, over Server-Sent Events",
    description="With `Accept: text/event-stream`. It does not resume.",
    parameters=(BRAND,),
    responses=(
        ResponseSpec(200, "Frames.", Event, (NO_STORE,), media="text/event-stream"),
    ),
    refusals=(*CALLER_ERRORS, ACCEPT, *CONNECTING, *STORE),
    security=(PLAYER_TOKEN,),
)
GATEWAY: Final = Surface(
    name="gateway",
    title="Casino gateway",
    description="A casino gateway's list, marks and stream.",
    refuse=refusals.refusal,
    error_type=refusals.GatewayError,
    failed=refusals.failed(Headers()),
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

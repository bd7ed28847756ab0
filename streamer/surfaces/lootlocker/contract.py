"""
The contract of the LootLocker surface.

Decides nothing. Declares in the terms of `streamer.contract` what `routes`, `wire` and
`refusals` implement, with their types and limits.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    TIME,
    Body,
    Operation,
    ResponseSpec,
    Scheme,
    Surface,
    header,
    matching,
    query,
)
from ...contract.refusals import (
    BAD_QUERY,
    BODY,
    CREDENTIAL,
    IN_FLIGHT,
    KEY,
    QUOTA,
    RIGHT,
    STORE,
    WRITE,
)
from ...errors import (
    Draining,
    Error,
    ForeignOrigin,
    NotFound,
    RateLimited,
    TooLate,
    UsedUp,
)
from . import refusals, wire

__all__ = ["LOOTLOCKER"]

REQUEST: Final = "7b0f2f5e-9f0c-4d0e-8b43-6d4c1f1d6c1a"


class LootLockerError(msgspec.Struct, frozen=True):
    """`code` is for programs, `message` for people."""

    code: str
    message: str
    request_id: str
    trace_id: str
    param: str | UnsetType = UNSET


class SessionResponse(msgspec.Struct, frozen=True):
    token: str


class PingResponse(msgspec.Struct, frozen=True):
    pong: Annotated[str, TIME]


class EmptyResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


def refuse(error: Error) -> Response:
    return refusals.refusal(error, REQUEST)


SERVER_KEY: Final = Scheme(
    "lootlocker.key",
    {
        "type": "apiKey",
        "in": "header",
        "name": "x-server-key",
        "description": "A backend key.",
    },
)
SERVER: Final = Scheme(
    "lootlocker.server",
    {
        "type": "apiKey",
        "in": "header",
        "name": "x-auth-token",
        "description": "The token from `POST /server/session`, or a backend key.",
    },
)
GAME: Final = Scheme(
    "lootlocker.game",
    {
        "type": "apiKey",
        "in": "header",
        "name": "x-session-token",
        "description": "A player's token.",
    },
)
REQUEST_ID: Final = header(
    "LL-Request-Id",
    str,
    "Id of the request, for errors, the log and `X-Request-Id`, unless that is sent.",
)
SEND_BODY: Final = Body[wire.LootLockerSendBody](
    wire.LootLockerSendBody,
    wire.BODY_BYTES_MAX,
    examples={
        "message": {
            "notification_type": "pull.message.test",
            "priority": "medium",
            "recipient": "01HPWN4BPKZ3FJHQHP0X2TQKQ5",
            "content": {"text": "hello"},
            "properties": [{"key": "zone", "value": "moor"}],
        }
    },
)
MARK_BODY: Final = Body[wire.LootLockerMarkBody](
    wire.LootLockerMarkBody, wire.BODY_BYTES_MAX
)
# An empty value means absent.
Flag = Annotated[str, matching(r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])?$")]

OPEN_SESSION: Final = Operation(
    method="POST",
    path="/server/session",
    name="openSession",
    summary="Create a server session",
    description="The body is ignored.",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(200, "The session, valid for 24 hours.", SessionResponse),),
    refusals=(*CREDENTIAL, *WRITE),
    security=(SERVER_KEY,),
    other_paths=("/server/session/",),
)
PING: Final = Operation(
    method="GET",
    path="/server/ping",
    name="ping",
    summary="Renew a server session",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(200, "The time of the server.", PingResponse),),
    refusals=(*CREDENTIAL, *WRITE),
    security=(SERVER,),
    other_paths=("/server/ping/",),
)
SEND: Final = Operation(
    method="POST",
    path="/server/notifications/v1/",
    name="send",
    summary="Send a notification to a player",
    parameters=(REQUEST_ID, IDEMPOTENCY_KEY),
    body=SEND_BODY,
    responses=(ResponseSpec(200, "Sent.", EmptyResponse, (REPLAYED,)),),
    refusals=(*CREDENTIAL, *RIGHT, *BODY, *KEY, *IN_FLIGHT, *QUOTA, *WRITE),
    security=(SERVER,),
    other_paths=("/server/notifications/v1",),
)
LIST: Final = Operation(
    method="GET",
    path="/game/notifications/v1",
    name="list",
    summary="List the player's notifications, newest first",
    description=(
        "An invalid `page` or `per_page` is reported in `pagination.errors`, and "
        "replaced by the nearest valid value."
    ),
    parameters=(
        REQUEST_ID,
        query("page", str, "Number of the page, from 1.", default="1"),
        query(
            "per_page",
            str,
            f"Notifications per page, from 1 to {wire.PER_PAGE_MAX}.",
            default=str(wire.PER_PAGE),
        ),
        query("read", Flag, "Only notifications that are read, or unread."),
        query("notification_type", str, "Only notifications of this type."),
        query(
            "priority",
            Literal[("", *wire.PRIORITIES)],
            "Only notifications of this priority.",
        ),
        query("source", str, "Only notifications of this source."),
        query("custom", Flag, "Only notifications that the game sent, or others."),
    ),
    responses=(ResponseSpec(200, "The page.", wire.LootLockerListResponse),),
    refusals=(*CREDENTIAL, *RIGHT, *BAD_QUERY, *IN_FLIGHT, *STORE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/",),
)
MARK_READ: Final = Operation(
    method="PUT",
    path="/game/notifications/v1/read",
    name="markRead",
    summary="Mark notifications as read",
    description="Unknown ids are ignored. This operation is idempotent.",
    parameters=(REQUEST_ID,),
    body=MARK_BODY,
    responses=(ResponseSpec(204, "Marked as read."),),
    refusals=(*CREDENTIAL, *RIGHT, *BODY, *IN_FLIGHT, *WRITE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/read/",),
)
MARK_ALL_READ: Final = Operation(
    method="PUT",
    path="/game/notifications/v1/read/all",
    name="markAllRead",
    summary="Mark all notifications as read",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(204, "Marked as read."),),
    refusals=(*CREDENTIAL, *RIGHT, *IN_FLIGHT, *WRITE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/read/all/",),
)
LOOTLOCKER: Final = Surface(
    name="lootlocker",
    title="LootLocker",
    description="LootLocker's Server API for sending, and its Game API for reading.",
    refuse=refuse,
    error_type=LootLockerError,
    failed=refusals.failed(REQUEST),
    not_utf8=refusals.no_route(NOT_UTF8, REQUEST),
    never_raised=(NotFound, ForeignOrigin, TooLate, RateLimited, UsedUp, Draining),
    operations=(
        OPEN_SESSION,
        PING,
        SEND,
        LIST,
        MARK_READ,
        MARK_ALL_READ,
    ),
)

"""
What the LootLocker surface can be asked, and what it answers.

Decides nothing: it says in the words of `streamer.contract` what `routes`, `wire` and
`refusals` hold, with their own types and limits.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

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
        "description": "What `POST /server/session` gave, or a backend key.",
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
REQUEST_ID: Final = header("LL-Request-Id", str, "A name for the request.")
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
# What is empty is absent.
Flag = Annotated[str, matching(r"^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])?$")]

OPEN_SESSION: Final = Operation(
    method="POST",
    path="/server/session",
    name="openSession",
    summary="Open a server's session",
    description="What is in the body does not matter.",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(200, "Good for 24 hours.", SessionResponse),),
    refusals=(*CREDENTIAL, *WRITE),
    security=(SERVER_KEY,),
    other_paths=("/server/session/",),
)
PING: Final = Operation(
    method="GET",
    path="/server/ping",
    name="ping",
    summary="Keep a server's session",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(200, "The time here.", PingResponse),),
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
    responses=(ResponseSpec(200, "It is in the inbox.", EmptyResponse, (REPLAYED,)),),
    refusals=(*CREDENTIAL, *RIGHT, *BODY, *KEY, *IN_FLIGHT, *QUOTA, *WRITE),
    security=(SERVER,),
    other_paths=("/server/notifications/v1",),
)
LIST: Final = Operation(
    method="GET",
    path="/game/notifications/v1",
    name="list",
    summary="List one's notifications, newest first",
    description=(
        "A `page` or `per_page` that is none is told of in "
        "`pagination.errors`, and the nearest good value is used."
    ),
    parameters=(
        REQUEST_ID,
        query("page", str, "From 1.", default="1"),
        query(
            "per_page",
            str,
            f"From 1 to {wire.PER_PAGE_MAX}.",
            default=str(wire.PER_PAGE),
        ),
        query("read", Flag, "Only those that are read, or are not."),
        query("notification_type", str, "Only those."),
        query("priority", Literal[("", *wire.PRIORITIES)], "Only those."),
        query("source", str, "Only those."),
        query("custom", Flag, "Whether it was sent by the game's owner."),
    ),
    responses=(ResponseSpec(200, "A page.", wire.LootLockerListResponse),),
    refusals=(*CREDENTIAL, *RIGHT, *BAD_QUERY, *IN_FLIGHT, *STORE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/",),
)
MARK_READ: Final = Operation(
    method="PUT",
    path="/game/notifications/v1/read",
    name="markRead",
    summary="Mark notifications as read",
    description="Unknown ids are ignored.",
    parameters=(REQUEST_ID,),
    body=MARK_BODY,
    responses=(ResponseSpec(204, "They are."),),
    refusals=(*CREDENTIAL, *RIGHT, *BODY, *IN_FLIGHT, *WRITE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/read/",),
)
MARK_ALL_READ: Final = Operation(
    method="PUT",
    path="/game/notifications/v1/read/all",
    name="markAllRead",
    summary="Mark everything as read",
    parameters=(REQUEST_ID,),
    responses=(ResponseSpec(204, "It is."),),
    refusals=(*CREDENTIAL, *RIGHT, *IN_FLIGHT, *WRITE),
    security=(GAME,),
    other_paths=("/game/notifications/v1/read/all/",),
)
LOOTLOCKER: Final = Surface(
    name="lootlocker",
    title="LootLocker",
    description="LootLocker's Server API for sending, and what a game reads and marks.",
    refuse=refuse,
    error_type=LootLockerError,
    failed=refusals.failed(REQUEST),
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

"""
The contract of the RallyHere surface.

Decides nothing. Declares in the terms of `streamer.contract` what `routes`, `wire` and
`refusals` implement, with their types and limits.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from starlette.datastructures import Headers

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    CACHED,
    COOKIE,
    IDEMPOTENCY_KEY,
    NO_STORE,
    REPLAYED,
    Body,
    Link,
    Operation,
    ResponseSpec,
    Scheme,
    Surface,
    header,
    matching,
    path,
    query,
)
from ...contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    CONNECTING,
    CREDENTIAL,
    FOREIGN_ORIGIN,
    IN_FLIGHT,
    KEY,
    QUOTA,
    RIGHT,
    STORE,
    WRITE,
    unknown,
)
from ...core.streams.subscription import Start
from ...errors import RateLimited, TooLate, UsedUp
from . import refusals, wire

__all__ = ["RALLYHERE"]


class RallyHereError(msgspec.Struct, frozen=True):
    """`auth_success` is false if a new token may help."""

    auth_success: bool
    error_code: str
    desc: str


class ValidationFailure(msgspec.Struct, frozen=True):
    """Every problem of a request."""

    detail: list[refusals.ValidationItem]


PlayerId = Annotated[
    str,
    matching(
        r"^(me|[0-7][0-9A-HJKMNP-TV-Z]{25}"
        r"|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$"
    ),
]

PLAYER: Final = path(
    "player_uuid",
    PlayerId,
    "Id of the player: a UUID, a ULID, or `me`.",
    has_slashes=True,
)
CALLER_ERRORS: Final = (*CREDENTIAL, *FOREIGN_ORIGIN, *BAD_PATH, *RIGHT, *IN_FLIGHT)
TOKEN: Final = Scheme(
    "rallyhere",
    {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of a player or a service, or a backend key.",
    },
)
CREATE_BODY: Final = Body[wire.NotificationCreates](
    wire.NotificationCreates,
    wire.BODY_BYTES_MAX,
    examples={"one": {"notifications": [{"message": "Your friend is here"}]}},
)
INBOX: Final = "/notification/v1/player/{player_uuid}/notification"
LONG_POLL: Final = "/notification/v1/player/{player_uuid}/stream/notification/lp"

PAGE: Final = Operation(
    method="GET",
    path=INBOX,
    name="page",
    summary="Retrieve a page of notifications, newest first",
    parameters=(
        PLAYER,
        wire.PAGE_SIZE,
        query(
            "start_at",
            str,
            "Cursor or id of the first notification on the page. An unknown one is "
            "ignored.",
        ),
        query(
            "exclude_before",
            str,
            "Only notifications newer than this cursor or id. An unknown one is "
            "ignored.",
        ),
        header("If-None-Match", str, "ETag of the cached page."),
    ),
    responses=(
        ResponseSpec(
            200,
            "The page. Pass `cursor` as `start_at` for the next one.",
            wire.RallyHerePage,
            CACHED,
        ),
        ResponseSpec(304, "Not modified.", headers=CACHED),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(TOKEN, COOKIE),
)
CREATE: Final = Operation(
    method="POST",
    path=INBOX,
    name="create",
    summary="Create notifications",
    description="Creates all of the notifications or none.",
    parameters=(PLAYER, IDEMPOTENCY_KEY),
    body=CREATE_BODY,
    responses=(
        ResponseSpec(
            200,
            "Id of the last notification.",
            wire.CreatedResponse,
            (REPLAYED,),
            links=(
                Link(
                    "rallyhere.one",
                    {
                        "player_uuid": "$request.path.player_uuid",
                        "notification_id": ("$response.body#/notification_id"),
                    },
                ),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BODY, *KEY, *QUOTA, *WRITE),
    security=(TOKEN, COOKIE),
)
ONE: Final = Operation(
    method="GET",
    path=f"{INBOX}/{{notification_id}}",
    name="one",
    summary="Retrieve a notification",
    parameters=(PLAYER, path("notification_id", str, "Id of the notification.")),
    responses=(ResponseSpec(200, "The notification.", wire.RallyHereNotification),),
    refusals=(*CALLER_ERRORS, *unknown("the notification"), *STORE),
    security=(TOKEN, COOKIE),
)
POLL: Final = Operation(
    method="GET",
    path=LONG_POLL,
    name="poll",
    summary="Wait for notifications, oldest first",
    description=(
        "Returns at once if there are notifications after `exclude_before`, otherwise "
        "when the first one arrives, or at the deadline without any."
    ),
    parameters=(
        PLAYER,
        wire.MAX_PAGE_SIZE,
        query("exclude_before", str, "The `cursor` of the previous poll."),
        query(
            "offset_reset_strategy",
            Start,
            "Where to start without `exclude_before`, or if it is unknown.",
            default=Start.LATEST.value,
        ),
        wire.DEADLINE,
    ),
    responses=(
        ResponseSpec(
            200,
            "Pass `cursor` as `exclude_before` to the next poll.",
            wire.RallyHerePage,
            (NO_STORE,),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *CONNECTING, *STORE),
    security=(TOKEN, COOKIE),
)
RALLYHERE: Final = Surface(
    name="rallyhere",
    title="RallyHere",
    description="RallyHere's notification API: pages, long poll and creation.",
    refuse=refusals.refusal,
    error_type=RallyHereError,
    error_types={422: ValidationFailure},
    failed=refusals.failed(Headers()),
    not_utf8=refusals.no_route(NOT_UTF8, Headers()),
    never_raised=(TooLate, RateLimited, UsedUp),
    operations=(
        PAGE,
        CREATE,
        ONE,
        POLL,
    ),
)

"""
What the RallyHere surface can be asked, and what it answers.

Decides nothing: it says in the words of `streamer.contract` what `routes`, `wire` and
`refusals` hold, with their own types and limits.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

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
from ...model import CURSOR_CHARS_MAX
from . import refusals, wire

__all__ = ["RALLYHERE"]


class RallyHereError(msgspec.Struct, frozen=True):
    """`auth_success` is false where another token would help."""

    auth_success: bool
    error_code: str
    desc: str


class ValidationFailure(msgspec.Struct, frozen=True):
    """Everything that is wrong with a request."""

    detail: list[refusals.ValidationItem]


Place = Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)]
PlayerId = Annotated[
    str,
    matching(
        r"^(me|[0-7][0-9A-HJKMNP-TV-Z]{25}"
        r"|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$"
    ),
]

PLAYER: Final = path(
    "player_uuid", PlayerId, "A UUID, a ULID, or `me`.", has_slashes=True
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
    summary="Read a page, newest first",
    parameters=(
        PLAYER,
        wire.PAGE_SIZE,
        query("start_at", Place, "The newest one wanted, inclusive."),
        query("exclude_before", Place, "Nothing up to this one."),
        header("If-None-Match", str, "The ETag of the page that is had."),
    ),
    responses=(
        ResponseSpec(200, "`cursor` feeds `start_at`.", wire.RallyHerePage, CACHED),
        ResponseSpec(304, "Nothing has changed.", headers=CACHED),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(TOKEN, COOKIE),
)
CREATE: Final = Operation(
    method="POST",
    path=INBOX,
    name="create",
    summary="Create notifications",
    description="All of them or none.",
    parameters=(PLAYER, IDEMPOTENCY_KEY),
    body=CREATE_BODY,
    responses=(
        ResponseSpec(
            200,
            "The last one's id.",
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
    summary="Read one notification",
    parameters=(PLAYER, path("notification_id", str, "Its id.")),
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
        "Answers at once if there are any after `exclude_before`, else with "
        "the first that comes, or with none at the deadline."
    ),
    parameters=(
        PLAYER,
        wire.MAX_PAGE_SIZE,
        query("exclude_before", Place, "The `cursor` of the poll before."),
        query(
            "offset_reset_strategy",
            Start,
            "Where to begin without a place that is still good.",
            default=Start.LATEST.value,
        ),
        wire.DEADLINE,
    ),
    responses=(
        ResponseSpec(
            200, "`cursor` feeds `exclude_before`.", wire.RallyHerePage, (NO_STORE,)
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *CONNECTING, *STORE),
    security=(TOKEN, COOKIE),
)
RALLYHERE: Final = Surface(
    name="rallyhere",
    title="RallyHere",
    description="RallyHere's notification API: page, long poll, create, one by id.",
    refuse=refusals.refusal,
    error_type=RallyHereError,
    error_types={422: ValidationFailure},
    never_raised=(TooLate, RateLimited, UsedUp),
    operations=(
        PAGE,
        CREATE,
        ONE,
        POLL,
    ),
)

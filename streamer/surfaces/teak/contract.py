"""
The contract of the Teak surface.

Decides nothing. Declares in the terms of `streamer.contract` what `routes`, `wire` and
`refusals` implement. Parameters come in two encodings and are checked one by one, so
that a response reports every problem. Their types are documented here, with the limits
of `wire`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.datastructures import Headers
from starlette.responses import Response

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    Body,
    Operation,
    ResponseSpec,
    Surface,
    matching,
)
from ...contract.refusals import (
    KEY,
    KIND,
    QUOTA,
    RATE_LIMITED,
    RIGHT,
    TOO_LARGE,
    WRITE,
)
from ...errors import (
    Draining,
    ForeignOrigin,
    IssuerUnavailable,
    LimitReached,
    Malformed,
    NotFound,
    TooLate,
    Unauthenticated,
    UsedUp,
)
from ...transports.web.requests import FORM
from . import refusals, wire

__all__ = ["TEAK"]

PATH: Final = "/v2/schedule"

# A number is accepted wherever a name is.
Text = int | Annotated[str, matching(r"\S")]
User = (
    int
    | Annotated[
        str, Meta(min_length=1, max_length=128), matching(r"^[^\x00-\x1f\x7f]+$")
    ]
)
Identifier = (
    int
    | Annotated[
        str, Meta(min_length=1, max_length=wire.IDENTIFIER_CHARS_MAX), matching(r"\S")
    ]
)
Sentence = (
    int
    | Annotated[
        str, Meta(min_length=1, max_length=wire.MESSAGE_CHARS_MAX), matching(r"\S")
    ]
)
Users = Annotated[list[User], Meta(min_length=1, max_length=wire.USERS_MAX)]
When = Annotated[
    str,
    Meta(
        description=(
            "ISO 8601, in UTC unless it has an offset. Absent or past: send at once."
        ),
        examples=["2018-08-23 17:00:00"],
    ),
]


class TeakCredential(msgspec.Struct, frozen=True, kw_only=True):
    game_id: Text
    secret_key: Text


class TeakMessage(TeakCredential, frozen=True, kw_only=True):
    """
    A message to users. The first call with an identifier sets its text; later calls may
    omit it.
    """

    notification_identifier: Identifier
    # An empty value means absent.
    notification_message: Sentence | Literal[""] | UnsetType = UNSET
    send_time: When | UnsetType = UNSET


class ScheduleCall(TeakMessage, frozen=True, kw_only=True):
    """
    `device_ids` and `personalization_data`, by user, have no effect; `errors` in the
    response says so.
    """

    user_ids: Users
    device_ids: dict[str, str | int] | UnsetType = UNSET
    personalization_data: dict[str, dict[str, str | int]] | UnsetType = UNSET


class ScheduleForm(TeakMessage, frozen=True, kw_only=True):
    """A value may be a JSON array, or ids with commas between them."""

    user_ids: list[str] | str


class UnscheduleCall(TeakCredential, frozen=True, kw_only=True):
    """
    Either `ids`, or `user_ids` together with `notification_identifier`, which has no
    effect beside `ids`.
    """

    # An empty value means absent.
    ids: Annotated[list[str | int], Meta(max_length=wire.IDS_MAX)] | UnsetType = UNSET
    notification_identifier: Identifier | UnsetType = UNSET
    user_ids: Annotated[list[User], Meta(max_length=wire.USERS_MAX)] | UnsetType = UNSET


class UnscheduleForm(TeakCredential, frozen=True, kw_only=True):
    """The same. A value may be a JSON array, or ids with commas between them."""

    ids: list[str] | str | UnsetType = UNSET
    notification_identifier: Identifier | UnsetType = UNSET
    user_ids: list[str] | str | UnsetType = UNSET


class DeliveriesResponse(msgspec.Struct, frozen=True):
    status: Literal["ok"]
    ids: list[str]


class ScheduledResponse(msgspec.Struct, frozen=True):
    """
    `ids` in the order of `user_ids`; `scheduled` has the same by user. `errors` has
    what has no effect, by parameter and user.
    """

    status: Literal["ok"]
    ids: list[str]
    scheduled: dict[str, str]
    errors: dict[str, dict[str, str]] | UnsetType = UNSET


class TeakError(msgspec.Struct, frozen=True):
    """Every problem, by parameter."""

    status: Literal["error", "rate_limit"]
    errors: dict[str, list[str]]


def refuse(error: Any) -> Response:
    return refusals.refusal(error, PATH)


UNKNOWN: Final = ResponseSpec(
    404,
    "Unknown game, or wrong secret.",
    TeakError,
    examples={
        "UnknownGame": {
            "status": "error",
            "errors": {"game_id": ["Unknown app id 1001"]},
        }
    },
)
REFUSALS: Final = (
    refusals.InvalidParameters({"user_ids": ["must be present"]}),
    Malformed("it ends early"),
    *KIND,
    *TOO_LARGE,
    *RIGHT,
    *RATE_LIMITED,
    *WRITE,
    IssuerUnavailable(),
)

SCHEDULE: Final = Operation(
    method="POST",
    path=PATH,
    name="schedule",
    summary="Schedule a message to users",
    parameters=(IDEMPOTENCY_KEY,),
    body=Body[ScheduleCall](
        ScheduleCall, wire.BODY_BYTES_MAX, also={FORM: ScheduleForm}
    ),
    responses=(
        ResponseSpec(
            200,
            "The id of a delivery for each user.",
            ScheduledResponse,
            (REPLAYED,),
        ),
        UNKNOWN,
    ),
    refusals=(*REFUSALS, *KEY, *QUOTA),
)
UNSCHEDULE: Final = Operation(
    method="POST",
    path="/v2/unschedule",
    name="unschedule",
    summary="Cancel scheduled deliveries",
    body=Body[UnscheduleCall](
        UnscheduleCall, wire.BODY_BYTES_MAX, also={FORM: UnscheduleForm}
    ),
    responses=(
        ResponseSpec(200, "The ids of the cancelled deliveries.", DeliveriesResponse),
        UNKNOWN,
    ),
    refusals=REFUSALS,
)
TEAK: Final = Surface(
    name="teak",
    title="Teak",
    description="Teak's direct notification scheduling. The body has the credential.",
    refuse=refuse,
    error_type=TeakError,
    failed=refusals.failed(Headers()),
    not_utf8=refusals.no_route(NOT_UTF8, Headers()),
    never_raised=(
        Unauthenticated,
        ForeignOrigin,
        NotFound,
        TooLate,
        LimitReached,
        UsedUp,
        Draining,
    ),
    operations=(
        SCHEDULE,
        UNSCHEDULE,
    ),
)

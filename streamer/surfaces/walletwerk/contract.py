"""
The contract of the WalletWerk surface.

Decides nothing. Declares in the terms of `streamer.contract` what `routes`, `wire` and
`refusals` implement, with their types and limits. The types of responses, which `wire`
builds from dictionaries, are documented here; the tests check every response against
them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from starlette.datastructures import Headers

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    BEARER,
    COOKIE,
    IDEMPOTENCY_KEY,
    REPLAYED,
    TIME,
    UUID,
    Body,
    Link,
    Operation,
    ResponseSpec,
    Surface,
    path,
    query,
)
from ...contract.refusals import (
    BAD_QUERY,
    BODY,
    CREDENTIAL,
    FOREIGN_ORIGIN,
    KEY,
    QUOTA,
    RIGHT,
    STORE,
    TOO_LATE,
    USED_UP,
    WRITE,
    unknown,
)
from ...core.schedule import ScheduleState
from ...errors import Draining, LimitReached, RateLimited
from . import refusals, wire

__all__ = ["WALLETWERK"]

Count = Annotated[int, Meta(ge=0)]
Time = Annotated[str, TIME]
# An empty value means absent.
Status = Literal["", "pending", "sending", "sent", "cancelled", "failed"]


class CampaignNotification(msgspec.Struct, frozen=True, rename="camel"):
    """A notification of a campaign."""

    id: Annotated[str, UUID]
    campaign_id: str
    header: str
    body: str
    status: ScheduleState
    scheduled_for: Time | None
    sent_at: Time | None
    recipient_count: Count | None
    created_at: Time
    updated_at: Time


class CampaignPagination(msgspec.Struct, frozen=True, rename="camel"):
    total: Count
    limit: Count
    offset: Count
    has_more: bool


class CampaignNotificationList(msgspec.Struct, frozen=True):
    notifications: list[CampaignNotification]
    pagination: CampaignPagination


class CampaignNotificationResponse(msgspec.Struct, frozen=True):
    success: bool
    data: CampaignNotification


class CampaignNotificationsResponse(msgspec.Struct, frozen=True):
    success: bool
    data: CampaignNotificationList


class WalletWerkErrorDetail(msgspec.Struct, frozen=True):
    code: str
    message: str


class WalletWerkError(msgspec.Struct, frozen=True):
    success: bool
    error: WalletWerkErrorDetail


CAMPAIGN: Final = path("campaign", str, "Id of the campaign.")
ID: Final = path("id", str, "Id of the notification.")
SEND_BODY: Final = Body[wire.CampaignSendBody](
    wire.CampaignSendBody, wire.BODY_BYTES_MAX
)
SCHEDULE_BODY: Final = Body[wire.CampaignScheduleBody](
    wire.CampaignScheduleBody, wire.BODY_BYTES_MAX
)
BASE: Final = "/campaigns/{campaign}/notifications"
ALSO: Final = f"/api/v1{BASE}"
CREATED: Final = {"campaign": "$request.path.campaign", "id": "$response.body#/data/id"}
TO_ONE: Final = Link("walletwerk.one", CREATED)
TO_CANCEL: Final = Link("walletwerk.cancel", CREATED)
CALLER_ERRORS: Final = (*CREDENTIAL, *FOREIGN_ORIGIN, *RIGHT, *unknown("the campaign"))
NO_NOTIFICATION: Final = unknown("the notification")
SEND_ERRORS: Final = (*CALLER_ERRORS, *BODY, *KEY, *USED_UP, *QUOTA, *WRITE)

SEND: Final = Operation(
    method="POST",
    path=BASE,
    name="send",
    summary="Send a notification to a campaign",
    parameters=(CAMPAIGN, IDEMPOTENCY_KEY),
    body=SEND_BODY,
    responses=(
        ResponseSpec(
            201,
            "The notification, sent or still being sent.",
            CampaignNotificationResponse,
            (REPLAYED,),
            links=(TO_ONE,),
        ),
    ),
    refusals=SEND_ERRORS,
    security=(BEARER, COOKIE),
    other_paths=(ALSO,),
)
SCHEDULE: Final = Operation(
    method="POST",
    path=f"{BASE}/schedule",
    name="schedule",
    summary="Schedule a notification to a campaign",
    description="`scheduledFor` must be in the future, within 30 days.",
    parameters=(CAMPAIGN, IDEMPOTENCY_KEY),
    body=SCHEDULE_BODY,
    responses=(
        ResponseSpec(
            201,
            "The notification, pending.",
            CampaignNotificationResponse,
            (REPLAYED,),
            links=(TO_ONE, TO_CANCEL),
        ),
    ),
    refusals=SEND_ERRORS,
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/schedule",),
)
SCHEDULED: Final = Operation(
    method="GET",
    path=f"{BASE}/scheduled",
    name="scheduled",
    summary="List scheduled notifications, newest first",
    parameters=(
        CAMPAIGN,
        wire.LIMIT,
        wire.OFFSET,
        query("status", Status, "Only notifications with this status."),
    ),
    responses=(ResponseSpec(200, "The page.", CampaignNotificationsResponse),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/scheduled",),
)
ONE: Final = Operation(
    method="GET",
    path=f"{BASE}/{{id}}",
    name="one",
    summary="Retrieve a notification",
    parameters=(CAMPAIGN, ID),
    responses=(ResponseSpec(200, "The notification.", CampaignNotificationResponse),),
    refusals=(*CALLER_ERRORS, *NO_NOTIFICATION, *STORE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/{{id}}",),
)
CANCEL: Final = Operation(
    method="DELETE",
    path=f"{BASE}/{{id}}",
    name="cancel",
    summary="Cancel a notification",
    description=(
        "Only a pending notification can be cancelled; a cancelled one cannot, either. "
        "It no longer counts against the campaign's limit."
    ),
    parameters=(CAMPAIGN, ID),
    responses=(
        ResponseSpec(200, "The cancelled notification.", CampaignNotificationResponse),
    ),
    refusals=(*CALLER_ERRORS, *NO_NOTIFICATION, *TOO_LATE, *WRITE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/{{id}}",),
)
WALLETWERK: Final = Surface(
    name="walletwerk",
    title="WalletWerk",
    description="WalletWerk's notifications to the active cards of a campaign.",
    refuse=refusals.refusal,
    error_type=WalletWerkError,
    failed=refusals.failed(Headers()),
    not_utf8=refusals.no_route(NOT_UTF8, Headers()),
    never_raised=(RateLimited, LimitReached, Draining),
    operations=(
        SEND,
        SCHEDULE,
        SCHEDULED,
        ONE,
        CANCEL,
    ),
)

"""
What the WalletWerk surface can be asked, and what it answers.

Decides nothing: it says in the words of `streamer.contract` what `routes` and `wire`
hold, with their own types and limits. The shapes of answers, which `wire` builds from
dictionaries, are written down here; the surface's tests hold every answer against them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

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
# What is empty is absent.
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


CAMPAIGN: Final = path("campaign", str, "The campaign.")
ID: Final = path("id", str, "The notification. `scheduled` is none.")
SEND_BODY: Final = Body[wire.CampaignSendBody](
    wire.CampaignSendBody, wire.BODY_BYTES_MAX
)
SCHEDULE_BODY: Final = Body[wire.CampaignScheduleBody](
    wire.CampaignScheduleBody, wire.BODY_BYTES_MAX
)
BASE: Final = "/campaigns/{campaign}/notifications"
ALSO: Final = f"/api/v1{BASE}"
MADE: Final = {"campaign": "$request.path.campaign", "id": "$response.body#/data/id"}
MADE_ONE: Final = Link("walletwerk.one", MADE)
MADE_CANCEL: Final = Link("walletwerk.cancel", MADE)
CALLER_ERRORS: Final = (*CREDENTIAL, *FOREIGN_ORIGIN, *RIGHT, *unknown("the campaign"))
NO_SEND: Final = unknown("the notification")
SENDS: Final = (*CALLER_ERRORS, *BODY, *KEY, *USED_UP, *QUOTA, *WRITE)

SEND: Final = Operation(
    method="POST",
    path=BASE,
    name="send",
    summary="Send to a campaign",
    parameters=(CAMPAIGN, IDEMPOTENCY_KEY),
    body=SEND_BODY,
    responses=(
        ResponseSpec(
            201,
            "How far it has got.",
            CampaignNotificationResponse,
            (REPLAYED,),
            links=(MADE_ONE,),
        ),
    ),
    refusals=SENDS,
    security=(BEARER, COOKIE),
    other_paths=(ALSO,),
)
SCHEDULE: Final = Operation(
    method="POST",
    path=f"{BASE}/schedule",
    name="schedule",
    summary="Send to a campaign later",
    description="In the future, and at most 30 days ahead.",
    parameters=(CAMPAIGN, IDEMPOTENCY_KEY),
    body=SCHEDULE_BODY,
    responses=(
        ResponseSpec(
            201,
            "It is pending.",
            CampaignNotificationResponse,
            (REPLAYED,),
            links=(MADE_ONE, MADE_CANCEL),
        ),
    ),
    refusals=SENDS,
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/schedule",),
)
SCHEDULED: Final = Operation(
    method="GET",
    path=f"{BASE}/scheduled",
    name="scheduled",
    summary="List what is scheduled, newest first",
    parameters=(
        CAMPAIGN,
        wire.LIMIT,
        wire.OFFSET,
        query("status", Status, "Only those."),
    ),
    responses=(ResponseSpec(200, "A page.", CampaignNotificationsResponse),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/scheduled",),
)
ONE: Final = Operation(
    method="GET",
    path=f"{BASE}/{{id}}",
    name="one",
    summary="Look at a notification",
    parameters=(CAMPAIGN, ID),
    responses=(ResponseSpec(200, "The notification.", CampaignNotificationResponse),),
    refusals=(*CALLER_ERRORS, *NO_SEND, *STORE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/{{id}}",),
)
CANCEL: Final = Operation(
    method="DELETE",
    path=f"{BASE}/{{id}}",
    name="cancel",
    summary="Cancel a notification",
    description="While it is pending. Its slot is free again.",
    parameters=(CAMPAIGN, ID),
    responses=(ResponseSpec(200, "It is cancelled.", CampaignNotificationResponse),),
    refusals=(*CALLER_ERRORS, *NO_SEND, *TOO_LATE, *WRITE),
    security=(BEARER, COOKIE),
    other_paths=(f"{ALSO}/{{id}}",),
)
WALLETWERK: Final = Surface(
    name="walletwerk",
    title="WalletWerk",
    description="WalletWerk's notifications to the active cards of a campaign.",
    refuse=refusals.refusal,
    error_type=WalletWerkError,
    never_raised=(RateLimited, LimitReached, Draining),
    operations=(
        SEND,
        SCHEDULE,
        SCHEDULED,
        ONE,
        CANCEL,
    ),
)

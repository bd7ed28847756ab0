"""
What the native surface can be asked about publishing, and what it answers.

Part of `contract`.
"""

from __future__ import annotations

from typing import Any, Final

from ....contract.operation import (
    BEARER,
    COOKIE,
    IDEMPOTENCY_KEY,
    REPLAYED,
    Body,
    Link,
    Operation,
    ResponseSpec,
    query,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    IN_FLIGHT,
    KEY,
    QUOTA,
    STORE,
    TOO_LATE,
    WRITE,
    unknown,
)
from ..common.body_types import CheckedBody
from ..common.parameters import CALLER_ERRORS, ID, LIMIT, TOPIC
from ..common.responses import (
    AudienceReceiptResponse,
    PublishResponse,
    ScheduledResponse,
    ScheduleResponse,
    SchedulesResponse,
)
from . import message_body, schedule_wire, wire

__all__ = ["PUBLISHING_OPERATIONS"]

_PUBLISH: Final = """
One message, or a list of up to 1,000 that have 1,000 recipients together at most and
are stored before it is answered. Needs the scope `notifications:send`. With `send_at`
in the future, with `spread_s`, or to more than 1,000 players a message is a schedule.
At least one of `type`, `title`, `body` and `data` has to be there.

A topic's message is stored once, for the players that have joined the topic; everyone's
for all players that the app ever had. With `persist: false` it is for who listens now,
is kept nowhere, and has no use for an idempotency key. All that is wrong is told at
once, each with a pointer.
"""

MOVE_BODY: Final = CheckedBody[schedule_wire.MoveBody](schedule_wire.MoveBody)

TO_FIRST: Final = "$response.body#/results/0/to"
TO_TOPIC: Final = "$request.body#/to/topic"
FIRST_ID: Final = "$response.body#/results/0/id"
SCHEDULE_ID: Final = "$response.body#/schedule/id"
OF_TOPIC: Final = "/v1/topics/{topic}/notifications/{id}"
OF_EVERYONE: Final = "/v1/everyone/notifications/{id}"
GONE: Final = unknown("the notification")

PUBLISH: Final = Operation(
    method="POST",
    path="/v1/notifications",
    name="publish",
    summary="Publish to players, a topic or everyone, now or later",
    description=_PUBLISH,
    parameters=(IDEMPOTENCY_KEY,),
    body=Body[Any](
        message_body.PublishBody | wire.PublishBatch,
        wire.PUBLISH_BYTES_MAX,
        examples={
            "now": {
                "to": {"players": ["alice", "bob"]},
                "type": "quest.done",
                "title": "Quest complete",
                "data": {"quest": 17, "gold": 250},
                "priority": "high",
            },
            "to a topic": {
                "to": {"topic": "news"},
                "title": "Servers are back",
                "collapse_key": "status",
                "ttl_s": 3600,
            },
            "live only": {
                "to": {"everyone": True},
                "type": "restart",
                "persist": False,
            },
            "several": [
                {"to": {"players": ["alice"]}, "title": "You won"},
                {"to": {"players": ["bob"]}, "title": "You lost"},
            ],
            "later": {
                "to": {"players": ["alice"]},
                "title": "Late",
                "spread_s": 60,
            },
        },
    ),
    responses=(
        ResponseSpec(
            200,
            "Stored in every inbox. Of a list of messages it is a list of these.",
            PublishResponse | list[PublishResponse],
            (REPLAYED,),
            links=(
                Link("native.one", {"player": TO_FIRST, "id": FIRST_ID}),
                Link("native.page", {"player": TO_FIRST}),
                Link("native.markRead", {"player": TO_FIRST}),
                Link("native.receipt", {"player": TO_FIRST, "id": FIRST_ID}),
                Link("native.delete", {"player": TO_FIRST, "id": FIRST_ID}),
                Link("native.topicReceipt", {"topic": TO_TOPIC, "id": FIRST_ID}),
                Link("native.withdrawFromTopic", {"topic": TO_TOPIC, "id": FIRST_ID}),
                Link("native.everyoneReceipt", {"id": FIRST_ID}),
                Link("native.withdrawFromEveryone", {"id": FIRST_ID}),
            ),
        ),
        ResponseSpec(
            202,
            "It is a schedule.",
            ScheduledResponse,
            (REPLAYED,),
            links=(
                Link("native.schedule", {"id": SCHEDULE_ID}),
                Link("native.moveSchedule", {"id": SCHEDULE_ID}),
                Link("native.cancelSchedule", {"id": SCHEDULE_ID}),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BODY, *KEY, *IN_FLIGHT, *QUOTA, *WRITE),
    security=(BEARER, COOKIE),
)
WITHDRAW_FROM_TOPIC: Final = Operation(
    method="DELETE",
    path=OF_TOPIC,
    name="withdrawFromTopic",
    summary="Take a message back from a topic",
    description=(
        "From every player's inbox; streams are told. Needs the scope "
        "`notifications:send`. Twice is once."
    ),
    parameters=(TOPIC, ID),
    responses=(ResponseSpec(204, "It is withdrawn."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *GONE, *WRITE),
    security=(BEARER, COOKIE),
)
WITHDRAW_FROM_EVERYONE: Final = Operation(
    method="DELETE",
    path=OF_EVERYONE,
    name="withdrawFromEveryone",
    summary="Take a message back from everyone",
    description="As from a topic.",
    parameters=(ID,),
    responses=(ResponseSpec(204, "It is withdrawn."),),
    refusals=(*CALLER_ERRORS, *GONE, *WRITE),
    security=(BEARER, COOKIE),
)
TOPIC_RECEIPT: Final = Operation(
    method="GET",
    path=f"{OF_TOPIC}/receipt",
    name="topicReceipt",
    summary="What became of a topic's message",
    description=(
        "How many players have read it, and whose clients have it. Needs the scope "
        "`notifications:send`."
    ),
    parameters=(TOPIC, ID),
    responses=(ResponseSpec(200, "The receipt.", AudienceReceiptResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *GONE, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
EVERYONE_RECEIPT: Final = Operation(
    method="GET",
    path=f"{OF_EVERYONE}/receipt",
    name="everyoneReceipt",
    summary="What became of a message to everyone",
    description="As of a topic's.",
    parameters=(ID,),
    responses=(ResponseSpec(200, "The receipt.", AudienceReceiptResponse),),
    refusals=(*CALLER_ERRORS, *GONE, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
SCHEDULES: Final = Operation(
    method="GET",
    path="/v1/schedules",
    name="schedules",
    summary="List schedules",
    description="Needs the scope `schedules:write`.",
    parameters=(
        LIMIT,
        query("after", str, "The `next` of the page before."),
    ),
    responses=(ResponseSpec(200, "Oldest first.", SchedulesResponse),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
)
SCHEDULE: Final = Operation(
    method="GET",
    path="/v1/schedules/{id}",
    name="schedule",
    summary="Look at a schedule",
    parameters=(ID,),
    responses=(ResponseSpec(200, "The schedule.", ScheduleResponse),),
    refusals=(*CALLER_ERRORS, *unknown("the schedule"), *STORE),
    security=(BEARER, COOKIE),
)
MOVE_SCHEDULE: Final = Operation(
    method="PATCH",
    path="/v1/schedules/{id}",
    name="moveSchedule",
    summary="Move a schedule",
    parameters=(ID,),
    body=MOVE_BODY,
    responses=(ResponseSpec(200, "The schedule, moved.", ScheduleResponse),),
    refusals=(*CALLER_ERRORS, *unknown("the schedule"), *BODY, *TOO_LATE, *WRITE),
    security=(BEARER, COOKIE),
)
CANCEL_SCHEDULE: Final = Operation(
    method="DELETE",
    path="/v1/schedules/{id}",
    name="cancelSchedule",
    summary="Cancel a schedule",
    description="A second cancellation is answered as the first one was.",
    parameters=(ID,),
    responses=(ResponseSpec(200, "The schedule, cancelled.", ScheduleResponse),),
    refusals=(*CALLER_ERRORS, *unknown("the schedule"), *TOO_LATE, *WRITE),
    security=(BEARER, COOKIE),
)
PUBLISHING_OPERATIONS: Final = (
    PUBLISH,
    WITHDRAW_FROM_TOPIC,
    WITHDRAW_FROM_EVERYONE,
    TOPIC_RECEIPT,
    EVERYONE_RECEIPT,
    SCHEDULES,
    SCHEDULE,
    MOVE_SCHEDULE,
    CANCEL_SCHEDULE,
)

"""
The contract of publishing: messages, receipts of audiences, schedules.
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
    path,
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
from ..common.parameters import CALLER_ERRORS, ID, LIMIT, PURGE, REASON, TOPIC
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
The body is one message, or a list of at most 1,000 messages with at most 1,000
recipients in total. All of them are stored before the response. Requires the scope
`notifications:send`. A message with `send_at` in the future, with `spread_s`, or to
more than 1,000 players becomes a schedule. At least one of `type`, `title`, `body` and
`data` is required.

A message to a topic is stored once, for the players subscribed to the topic; a
message to everyone, for all players that the app has had so far. A message with
`persist: false` reaches only streams that are open now; it is not stored, and its
idempotency key has no effect. The response to an invalid request lists every problem,
each with a JSON pointer.
"""

MOVE_BODY: Final = CheckedBody[schedule_wire.MoveBody](schedule_wire.MoveBody)

TO_FIRST: Final = "$response.body#/results/0/to"
TO_TOPIC: Final = "$request.body#/to/topic"
FIRST_ID: Final = "$response.body#/results/0/id"
SCHEDULE_ID: Final = path("id", str, "Id of the schedule.")
LINKED_SCHEDULE: Final = "$response.body#/schedule/id"
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
            "Stored in every inbox. A list of messages returns a list of results.",
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
            "The message became a schedule.",
            ScheduledResponse,
            (REPLAYED,),
            links=(
                Link("native.schedule", {"id": LINKED_SCHEDULE}),
                Link("native.moveSchedule", {"id": LINKED_SCHEDULE}),
                Link("native.cancelSchedule", {"id": LINKED_SCHEDULE}),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BODY, *KEY, *IN_FLIGHT, *QUOTA, *WRITE),
    security=(BEARER, COOKIE),
    direct=(),
)
WITHDRAW_FROM_TOPIC: Final = Operation(
    method="DELETE",
    path=OF_TOPIC,
    name="withdrawFromTopic",
    summary="Withdraw a message to a topic",
    description=(
        "Removes the message from every player's inbox and notifies open streams. "
        "Requires the scope `notifications:send`. This operation is idempotent."
    ),
    parameters=(TOPIC, ID, PURGE, REASON),
    responses=(ResponseSpec(204, "Withdrawn."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BAD_QUERY, *GONE, *WRITE),
    security=(BEARER, COOKIE),
)
WITHDRAW_FROM_EVERYONE: Final = Operation(
    method="DELETE",
    path=OF_EVERYONE,
    name="withdrawFromEveryone",
    summary="Withdraw a message to everyone",
    description=(
        "Works as for a topic. Requires the scope `notifications:send`. This operation "
        "is idempotent."
    ),
    parameters=(ID, PURGE, REASON),
    responses=(ResponseSpec(204, "Withdrawn."),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *GONE, *WRITE),
    security=(BEARER, COOKIE),
)
TOPIC_RECEIPT: Final = Operation(
    method="GET",
    path=f"{OF_TOPIC}/receipt",
    name="topicReceipt",
    summary="Retrieve the receipt of a message to a topic",
    description=(
        "The number of players that have read the message, and of players whose "
        "clients have acknowledged it. Requires the scope `notifications:send`."
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
    summary="Retrieve the receipt of a message to everyone",
    description=("Works as for a topic. Requires the scope `notifications:send`."),
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
    description="Requires the scope `schedules:write`, as all operations on schedules.",
    parameters=(
        LIMIT,
        query("after", str, "The `next` of the previous page."),
    ),
    responses=(
        ResponseSpec(200, "A page of schedules, oldest first.", SchedulesResponse),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
)
SCHEDULE: Final = Operation(
    method="GET",
    path="/v1/schedules/{id}",
    name="schedule",
    summary="Retrieve a schedule",
    parameters=(SCHEDULE_ID,),
    responses=(ResponseSpec(200, "The schedule.", ScheduleResponse),),
    refusals=(*CALLER_ERRORS, *unknown("the schedule"), *STORE),
    security=(BEARER, COOKIE),
)
MOVE_SCHEDULE: Final = Operation(
    method="PATCH",
    path="/v1/schedules/{id}",
    name="moveSchedule",
    summary="Reschedule a schedule that is pending or paused",
    parameters=(SCHEDULE_ID,),
    body=MOVE_BODY,
    responses=(ResponseSpec(200, "The schedule with its new time.", ScheduleResponse),),
    refusals=(*CALLER_ERRORS, *unknown("the schedule"), *BODY, *TOO_LATE, *WRITE),
    security=(BEARER, COOKIE),
)
_CHANGE_REFUSALS: Final = (
    *CALLER_ERRORS,
    *BAD_QUERY,
    *unknown("the schedule"),
    *TOO_LATE,
    *WRITE,
)
CANCEL_SCHEDULE: Final = Operation(
    method="DELETE",
    path="/v1/schedules/{id}",
    name="cancelSchedule",
    summary="Cancel a schedule that is pending or paused",
    description=(
        "With `purge=true` the text is removed, also from a schedule that was sent; "
        "what it has sent is purged by its own id. This operation is idempotent."
    ),
    parameters=(SCHEDULE_ID, PURGE, REASON),
    responses=(ResponseSpec(200, "The cancelled schedule.", ScheduleResponse),),
    refusals=_CHANGE_REFUSALS,
    security=(BEARER, COOKIE),
)
PAUSE_SCHEDULE: Final = Operation(
    method="POST",
    path="/v1/schedules/{id}/pause",
    name="pauseSchedule",
    summary="Pause a schedule that is pending or being sent",
    description=(
        "It is sent to nobody until it is resumed; players who are being served in "
        "that moment still get it. After 90 days it is cancelled. This operation is "
        "idempotent."
    ),
    parameters=(SCHEDULE_ID, REASON),
    responses=(ResponseSpec(200, "The paused schedule.", ScheduleResponse),),
    refusals=_CHANGE_REFUSALS,
    security=(BEARER, COOKIE),
)
RESUME_SCHEDULE: Final = Operation(
    method="POST",
    path="/v1/schedules/{id}/resume",
    name="resumeSchedule",
    summary="Resume a paused schedule",
    description=(
        "If its time has passed, it is sent at once. A 409 says that it is cancelled, "
        "or that its notification has expired. This operation is idempotent: a "
        "schedule that is not paused stays as it is."
    ),
    parameters=(SCHEDULE_ID, REASON),
    responses=(ResponseSpec(200, "The schedule.", ScheduleResponse),),
    refusals=_CHANGE_REFUSALS,
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
    PAUSE_SCHEDULE,
    RESUME_SCHEDULE,
)

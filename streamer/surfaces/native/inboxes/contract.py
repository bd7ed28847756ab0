"""
What the native surface can be asked about inboxes, and what it answers.

Part of `contract`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from ....contract.operation import (
    BEARER,
    CACHED,
    COOKIE,
    Operation,
    ResponseSpec,
    header,
    query,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    IN_FLIGHT,
    STORE,
    WRITE,
    unknown,
)
from ....model import Priority
from ..common.body_types import CheckedBody
from ..common.names import TYPE_CHARS_MAX
from ..common.parameters import (
    CALLER_ERRORS,
    ID,
    INBOX,
    LIMIT,
    PLAYER,
    Cursor,
    TopicName,
)
from ..common.responses import (
    NotificationResponse,
    PageResponse,
    ReceiptResponse,
    UnreadCountsResponse,
    UnreadResponse,
)
from . import wire
from .wire import FILTER_MAX

__all__ = ["INBOX_OPERATIONS"]

Order = Literal["newest", "oldest"]
Texts = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=TYPE_CHARS_MAX)]],
    Meta(max_length=FILTER_MAX),
]
Priorities = Annotated[list[Priority], Meta(max_length=FILTER_MAX)]

_PAGE: Final = """
The player's own notifications and those of its audiences, as one list. `type` and
`priority` may come several times, or be lists with commas. A page that is filtered may
have fewer than `limit`, and be empty, and have a `next` all the same.

With `order=oldest` it begins behind `after`, or at the oldest that is kept, and `next`
is a cursor for `after`; `gap` says that something behind `after` is gone, and why.
"""

MARK_BODY: Final = CheckedBody[wire.MarkBody](
    wire.MarkBody,
    examples={
        "all": {"all": True},
        "some": {"ids": ["01a1fb45-4a92-7000-8007-ef36e1c1001a"]},
    },
)
MARK_UNREAD_BODY: Final = CheckedBody[wire.MarkUnreadBody](wire.MarkUnreadBody)
ACK_BODY: Final = CheckedBody[wire.AckBody](wire.AckBody)
UNREAD_BODY: Final = CheckedBody[wire.UnreadBody](wire.UnreadBody)

GONE: Final = unknown("the notification")

PAGE: Final = Operation(
    method="GET",
    path=INBOX,
    name="page",
    summary="Read a page of an inbox",
    description=_PAGE,
    parameters=(
        PLAYER,
        LIMIT,
        query("before", Cursor, "Older than this cursor or id."),
        query("after", Cursor, "Newer than this cursor or id."),
        query("order", Order, "Which come first.", default="newest"),
        query("type", Texts, "Of one of these types."),
        query("priority", Priorities, "Of one of these priorities."),
        query("topic", TopicName, "Sent to this topic."),
        query("unread", Literal["true"], "Not marked as read."),
        header("If-None-Match", str, "The ETag of the page that is had."),
    ),
    responses=(
        ResponseSpec(200, "A page.", PageResponse, CACHED),
        ResponseSpec(304, "Nothing has changed, marks included.", headers=CACHED),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BAD_QUERY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
ONE: Final = Operation(
    method="GET",
    path=f"{INBOX}/{{id}}",
    name="one",
    summary="Read one notification",
    parameters=(PLAYER, ID),
    responses=(ResponseSpec(200, "The notification.", NotificationResponse),),
    refusals=(
        *CALLER_ERRORS,
        *BAD_PATH,
        *unknown("the notification"),
        *IN_FLIGHT,
        *STORE,
    ),
    security=(BEARER, COOKIE),
)
DELETE: Final = Operation(
    method="DELETE",
    path=f"{INBOX}/{{id}}",
    name="delete",
    summary="Take a notification out of an inbox",
    description=(
        "A player's own, or, with the scope `notifications:send`, any player's. An "
        "audience's stays in the other players' inboxes. Twice is once."
    ),
    parameters=(PLAYER, ID),
    responses=(ResponseSpec(204, "It is not in there any more."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *GONE, *IN_FLIGHT, *WRITE),
    security=(BEARER, COOKIE),
)
RECEIPT: Final = Operation(
    method="GET",
    path=f"{INBOX}/{{id}}/receipt",
    name="receipt",
    summary="What became of a notification",
    parameters=(PLAYER, ID),
    responses=(ResponseSpec(200, "The receipt.", ReceiptResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *GONE, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
MARK_READ: Final = Operation(
    method="POST",
    path=f"{INBOX}/read",
    name="markRead",
    summary="Mark as read",
    description=(
        "With exactly one of `ids`, `up_to` (a cursor or id, inclusive) and "
        "`all`, which is true. Marking twice is marking once; unknown ids are "
        "ignored. The player's streams are told."
    ),
    parameters=(PLAYER,),
    body=MARK_BODY,
    responses=(ResponseSpec(200, "How many are unread after it.", UnreadResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
MARK_UNREAD: Final = Operation(
    method="POST",
    path=f"{INBOX}/unread",
    name="markUnread",
    summary="Take read marks back",
    description="Unknown ids are ignored. The player's streams are told.",
    parameters=(PLAYER,),
    body=MARK_UNREAD_BODY,
    responses=(ResponseSpec(200, "How many are unread after it.", UnreadResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
ACKNOWLEDGE: Final = Operation(
    method="POST",
    path=f"{INBOX}/ack",
    name="acknowledge",
    summary="Say that everything up to a cursor has arrived",
    description="For receipts. What is not in the inbox any more is ignored.",
    parameters=(PLAYER,),
    body=ACK_BODY,
    responses=(ResponseSpec(204, "It is noted."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
)
COUNT_UNREAD: Final = Operation(
    method="POST",
    path="/v1/unread",
    name="countUnread",
    summary="Count what many players have not read",
    description="Needs the scope `notifications:read`.",
    body=UNREAD_BODY,
    responses=(ResponseSpec(200, "A count for each.", UnreadCountsResponse),),
    refusals=(*CALLER_ERRORS, *BODY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
INBOX_OPERATIONS: Final = (
    PAGE,
    ONE,
    DELETE,
    RECEIPT,
    MARK_READ,
    MARK_UNREAD,
    ACKNOWLEDGE,
    COUNT_UNREAD,
)

"""
The contract of inboxes: pages, marks, receipts, unread counts.
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
    integer,
    query,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    CONNECTING,
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
    PURGE,
    REASON,
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

WAIT_MAX_S: Final = 45
"""
Most proxies give up a response after 50 or 60 s, and a page is read before and after
the wait.
"""

Order = Literal["newest", "oldest"]
Texts = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=TYPE_CHARS_MAX)]],
    Meta(max_length=FILTER_MAX),
]
Priorities = Annotated[list[Priority], Meta(max_length=FILTER_MAX)]

_PAGE: Final = """
The player's own notifications and those of the player's audiences, merged into one
list. `type` and `priority` may be repeated or contain several values separated by
commas. A filtered page may have fewer than `limit` notifications, even none, and still
have a `next`.

With `order=oldest` a page begins after `after`, or with the oldest retained
notification, and `next` is a cursor for `after`. Without a `next` the page has
everything up to its `cursor`. `gap` reports that notifications after `after` are no
longer available, and why.

With `wait_s`, which requires `order=oldest`, a request for a page that would be empty
waits for the first notification (long poll). It is answered with that page, or when the
time is over, the token expires or the server shuts down; without a filter also when the
number of unread notifications changes. Repeat it with `after` set to `next`, or to
`cursor` if `next` is null. With `If-None-Match` a page that the caller has counts as
empty. While it waits, the request counts as a stream of its player.
"""

MARK_BODY: Final = CheckedBody[wire.MarkBody](
    wire.MarkBody,
    examples={
        "all": {"all": True},
        "some": {"ids": ["01a1fb45-4a92-76ac-8000-00006974eed3"]},
    },
)
MARK_UNREAD_BODY: Final = CheckedBody[wire.MarkUnreadBody](wire.MarkUnreadBody)
ACK_BODY: Final = CheckedBody[wire.AckBody](wire.AckBody)
UNREAD_BODY: Final = CheckedBody[wire.UnreadBody](wire.UnreadBody)

WAIT: Final = integer(
    "wait_s",
    "Seconds to wait at most for the first notification.",
    default=0,
    least=0,
    most=WAIT_MAX_S,
)

GONE: Final = unknown("the notification")

PAGE: Final = Operation(
    method="GET",
    path=INBOX,
    name="page",
    summary="Retrieve a page of an inbox",
    description=_PAGE,
    parameters=(
        PLAYER,
        LIMIT,
        query("before", Cursor, "Only notifications older than this cursor or id."),
        query("after", Cursor, "Only notifications newer than this cursor or id."),
        query(
            "order",
            Order,
            "Whether the newest or the oldest come first.",
            default="newest",
        ),
        query("type", Texts, "Only notifications of these types."),
        query("priority", Priorities, "Only notifications of these priorities."),
        query("topic", TopicName, "Only notifications to this topic."),
        query("unread", Literal["true"], "Only unread notifications."),
        WAIT,
        header("If-None-Match", str, "ETag of the cached page."),
    ),
    responses=(
        ResponseSpec(200, "The page.", PageResponse, CACHED),
        ResponseSpec(
            304,
            "Not modified: neither notifications nor read marks have changed.",
            headers=CACHED,
        ),
    ),
    refusals=(
        *CALLER_ERRORS,
        *BAD_PATH,
        *BAD_QUERY,
        *IN_FLIGHT,
        *CONNECTING,
        *STORE,
    ),
    security=(BEARER, COOKIE),
    direct=("limit", "unread"),
)
ONE: Final = Operation(
    method="GET",
    path=f"{INBOX}/{{id}}",
    name="one",
    summary="Retrieve a notification",
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
    summary="Delete a notification from an inbox",
    description=(
        "A player's token may delete the player's own notifications, a key with the "
        "scope `notifications:send` those of any player. A notification to an audience "
        "remains in the inboxes of other players, and cannot be purged here. Purging "
        "requires the right to write to the player. This operation is idempotent."
    ),
    parameters=(PLAYER, ID, PURGE, REASON),
    responses=(ResponseSpec(204, "Deleted."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BAD_QUERY, *GONE, *IN_FLIGHT, *WRITE),
    security=(BEARER, COOKIE),
)
RECEIPT: Final = Operation(
    method="GET",
    path=f"{INBOX}/{{id}}/receipt",
    name="receipt",
    summary="Retrieve the receipt of a notification",
    parameters=(PLAYER, ID),
    responses=(ResponseSpec(200, "The receipt.", ReceiptResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *GONE, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
MARK_READ: Final = Operation(
    method="POST",
    path=f"{INBOX}/read",
    name="markRead",
    summary="Mark notifications as read",
    description=(
        "Requires exactly one of `ids`, `up_to` (a cursor or id, inclusive) and `all` "
        "(always true). Unknown ids are ignored. Notifies the player's open streams. "
        "This operation is idempotent."
    ),
    parameters=(PLAYER,),
    body=MARK_BODY,
    responses=(
        ResponseSpec(
            200, "The number of unread notifications afterwards.", UnreadResponse
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
    direct=(),
)
MARK_UNREAD: Final = Operation(
    method="POST",
    path=f"{INBOX}/unread",
    name="markUnread",
    summary="Mark notifications as unread",
    description=(
        "Unknown ids are ignored. Notifies the player's open streams. This operation "
        "is idempotent."
    ),
    parameters=(PLAYER,),
    body=MARK_UNREAD_BODY,
    responses=(
        ResponseSpec(
            200, "The number of unread notifications afterwards.", UnreadResponse
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
    direct=(),
)
ACKNOWLEDGE: Final = Operation(
    method="POST",
    path=f"{INBOX}/ack",
    name="acknowledge",
    summary="Acknowledge notifications up to a cursor",
    description=(
        "Receipts then show the notifications as acknowledged. Notifications that are "
        "no longer in the inbox are ignored."
    ),
    parameters=(PLAYER,),
    body=ACK_BODY,
    responses=(ResponseSpec(204, "Acknowledged."),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *WRITE),
    security=(BEARER, COOKIE),
    direct=(),
)
COUNT_UNREAD: Final = Operation(
    method="POST",
    path="/v1/unread",
    name="countUnread",
    summary="Retrieve the unread counts of several players",
    description="Requires the scope `notifications:read`.",
    body=UNREAD_BODY,
    responses=(ResponseSpec(200, "A count for each player.", UnreadCountsResponse),),
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

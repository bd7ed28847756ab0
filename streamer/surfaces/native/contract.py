"""
The contract of the native surface: its streams and credentials, and all of its parts.

Decides nothing. Declares in the terms of `streamer.contract` what routes, wires and
services implement, with their types and limits. `common.responses` has the types of
responses.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from ...contract.fallbacks import NOT_UTF8
from ...contract.operation import (
    BEARER,
    COOKIE,
    NO_STORE,
    STREAMED,
    Event,
    Operation,
    ResponseSpec,
    Scheme,
    Surface,
    header,
    matching,
    query,
)
from ...contract.operation import PLAYER as PLAYER_TOKEN
from ...contract.refusals import (
    BAD_HEADER,
    BAD_QUERY,
    BODY,
    CONNECTING,
    STORE,
    WRITE,
)
from ...core.streams.client_messages import TOPICS_MAX
from ...errors import RateLimited, UsedUp
from . import credentials
from .admin.contract import ADMIN_OPERATIONS
from .campaigns.contract import CAMPAIGN_OPERATIONS
from .common import problems
from .common.body_types import CheckedBody
from .common.parameters import CALLER_ERRORS, Cursor, TopicName
from .common.responses import Problem, TicketResponse, TokenResponse
from .inboxes.contract import INBOX_OPERATIONS
from .privacy.contract import PRIVACY_OPERATIONS
from .publishing.contract import PUBLISHING_OPERATIONS
from .topics.contract import TOPIC_OPERATIONS

__all__ = ["NATIVE", "STREAM"]

INSTANCE_PATTERN: Final = r"^[A-Za-z0-9_.-]{0,64}$"

Instance = Annotated[str, matching(INSTANCE_PATTERN)]
Topics = Annotated[list[TopicName], Meta(max_length=TOPICS_MAX)]


TICKET: Final = Scheme(
    "ticket",
    {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "A ticket from `POST /v1/tickets`, for EventSource. Single use.",
    },
)

TOKEN_BODY: Final = CheckedBody[credentials.TokenBody](credentials.TokenBody)
TICKET_BODY: Final = CheckedBody[credentials.TicketBody](
    credentials.TicketBody, required=False
)

_STREAM: Final = """
A request with a WebSocket upgrade opens a WebSocket, any other request a stream of
Server-Sent Events. The stream is that of the token's player. `clients/PROTOCOL.md`
documents all messages.

Every notification has a cursor. To resume, open a stream with the last cursor received:
missed notifications come first, or a `gap` event reports that some cannot be delivered.
"""
_WEBSOCKET: Final = """
The response is 101, or an error as above. Messages are text, each a JSON object with a
`type`. The server sends `hello` (`cursor`, `heartbeat_s`, `unread`, `marks_version`),
`notification` (`cursor`, `notification`), `gap` (`reason`, `cursor`), `read`, `ping`,
`pong`, `reply`, `error`, and finally `bye` (`code`, `reason`, `reconnect`, `delay_ms`);
the close frame has the same code. The client sends `auth` (`token`), `read` (the body
of the HTTP operation), `ack` (`cursor`), `subscribe` and `unsubscribe` (`topics`),
`ping` and `pong`; any other message closes the connection with 4203. A message with a
`ref` gets a `reply` or an `error` with the same `ref`. Codes 4000-4099: reconnect.
Codes 4100-4199: reconnect after the delay. Codes 4200-4299: do not reconnect with the
same credential.
"""

STREAM: Final = Operation(
    method="GET",
    path="/v1/stream",
    name="stream",
    summary="Open a stream of Server-Sent Events or a WebSocket",
    description=_STREAM,
    parameters=(
        query(
            "cursor",
            Cursor,
            "Where to start: after a cursor or id, or at the `earliest` entry.",
        ),
        query("instance", Instance, "Random id of the running client instance."),
        query("device", Instance, "Permanent id of the device."),
        query("topics", Topics, "Topics to deliver on this stream only."),
        query(
            "refusals",
            Literal["stream"],
            "Receive errors as events of the stream instead of HTTP errors.",
        ),
        query(
            "lastEventId",
            Cursor,
            "What polyfills of EventSource send instead of `Last-Event-ID`; also as "
            "`last_event_id`. Takes precedence over `cursor`.",
        ),
        header(
            "Last-Event-ID", Cursor, "Takes precedence over `lastEventId` and `cursor`."
        ),
    ),
    responses=(
        ResponseSpec(
            200,
            "The events of the stream.",
            Event,
            (STREAMED,),
            media="text/event-stream",
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *BAD_HEADER, *CONNECTING, *STORE),
    security=(PLAYER_TOKEN, COOKIE, TICKET),
    websocket=_WEBSOCKET,
)
MINT_TOKEN: Final = Operation(
    method="POST",
    path="/v1/tokens",
    name="mintToken",
    summary="Create a token for a player",
    description="Requires the scope `tokens:mint`.",
    body=TOKEN_BODY,
    responses=(ResponseSpec(200, "The token.", TokenResponse, (NO_STORE,)),),
    refusals=(*CALLER_ERRORS, *BODY, *STORE),
    security=(BEARER, COOKIE),
)
ISSUE_TICKET: Final = Operation(
    method="POST",
    path="/v1/tickets",
    name="issueTicket",
    summary="Create a ticket for EventSource",
    description="Requires a player's token.",
    body=TICKET_BODY,
    responses=(ResponseSpec(200, "The ticket.", TicketResponse, (NO_STORE,)),),
    refusals=(*CALLER_ERRORS, *BODY, *WRITE),
    security=(PLAYER_TOKEN, COOKIE),
)
NATIVE: Final = Surface(
    name="native",
    title="Native",
    description=(
        "Publishing, inboxes, topics, streams, schedules, campaigns, credentials and "
        "administration. Errors are problem documents (RFC 9457)."
    ),
    refuse=problems.problem,
    error_type=Problem,
    failed=problems.problem_response(500, "internal", "internal server error"),
    not_utf8=problems.problem_response(400, "invalid", NOT_UTF8.detail),
    never_raised=(UsedUp, RateLimited),
    operations=(
        *PUBLISHING_OPERATIONS,
        *INBOX_OPERATIONS,
        *TOPIC_OPERATIONS,
        STREAM,
        MINT_TOKEN,
        ISSUE_TICKET,
        *CAMPAIGN_OPERATIONS,
        *ADMIN_OPERATIONS,
        *PRIVACY_OPERATIONS,
    ),
)

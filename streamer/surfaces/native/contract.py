"""
What the native surface can be asked, and what it answers.

Decides nothing: it says in the words of `streamer.contract` what routes, wires and
services hold, with their own types and limits; `responses` has the shapes of answers.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from ...contract.operation import (
    BEARER,
    COOKIE,
    NO_STORE,
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
from ...errors import RateLimited, UsedUp
from . import credentials
from .campaigns.contract import CAMPAIGN_OPERATIONS
from .common import problems
from .common.body_types import CheckedBody
from .common.parameters import CALLER_ERRORS, Cursor
from .common.responses import Problem, TicketResponse, TokenResponse
from .inboxes.contract import INBOX_OPERATIONS
from .publishing.contract import PUBLISHING_OPERATIONS
from .topics.contract import TOPIC_OPERATIONS

__all__ = ["NATIVE"]

INSTANCE_PATTERN: Final = r"^[A-Za-z0-9_.-]{0,64}$"

Instance = Annotated[str, matching(INSTANCE_PATTERN)]


TICKET: Final = Scheme(
    "ticket",
    {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From `POST /v1/tickets`, for EventSource. Good once.",
    },
)

TOKEN_BODY: Final = CheckedBody[credentials.TokenBody](credentials.TokenBody)
TICKET_BODY: Final = CheckedBody[credentials.TicketBody](
    credentials.TicketBody, required=False
)

_STREAM: Final = """
With a WebSocket upgrade it is a WebSocket, otherwise Server-Sent Events. It is always
the stream of the token's own player. `clients/PROTOCOL.md` has the messages in full.

Every notification comes with the cursor behind it. A stream that is opened with it
goes on there: what was missed comes first, or a `gap` says that it cannot.
"""
_WEBSOCKET: Final = """
Answered with 101, or refused as above. Text messages, one JSON object each, with a
`type`. From the server: `hello` (`cursor`, `heartbeat_s`, `unread`, `marks_version`),
`notification` (`cursor`, `notification`), `gap` (`reason`, `cursor`), `read`, `ping`,
`pong`, `reply`, `error`, and `bye` (`code`, `reason`, `reconnect`, `delay_ms`) as the
last one; the close has the same code. From the client: `auth` (`token`), `read` (as the
body of the request, with an optional `ref`), `ping`, `pong`; anything else is 4203.
Codes from 4000 mean: come back; from 4100: after the delay; from 4200: not with that.
"""

STREAM: Final = Operation(
    method="GET",
    path="/v1/stream",
    name="stream",
    summary="Listen, over Server-Sent Events or a WebSocket",
    description=_STREAM,
    parameters=(
        query("cursor", Cursor, "Where to begin: a cursor, an id, `earliest`."),
        query("instance", Instance, "One running client, at random."),
        query("device", Instance, "The device, for ever."),
        query("refusals", Literal["stream"], "Be refused within the stream."),
        header("Last-Event-ID", Cursor, "Wins over `cursor`."),
    ),
    responses=(
        ResponseSpec(200, "Events.", Event, (NO_STORE,), media="text/event-stream"),
    ),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *BAD_HEADER, *CONNECTING, *STORE),
    security=(PLAYER_TOKEN, COOKIE, TICKET),
    websocket=_WEBSOCKET,
)
MINT_TOKEN: Final = Operation(
    method="POST",
    path="/v1/tokens",
    name="mintToken",
    summary="Make a token for a player",
    description="Needs the scope `tokens:mint`.",
    body=TOKEN_BODY,
    responses=(ResponseSpec(200, "The token.", TokenResponse, (NO_STORE,)),),
    refusals=(*CALLER_ERRORS, *BODY, *STORE),
    security=(BEARER, COOKIE),
)
ISSUE_TICKET: Final = Operation(
    method="POST",
    path="/v1/tickets",
    name="issueTicket",
    summary="Get a ticket for EventSource",
    description="With a player's token.",
    body=TICKET_BODY,
    responses=(ResponseSpec(200, "The ticket.", TicketResponse, (NO_STORE,)),),
    refusals=(*CALLER_ERRORS, *BODY, *WRITE),
    security=(PLAYER_TOKEN, COOKIE),
)
NATIVE: Final = Surface(
    name="native",
    title="Native",
    description=(
        "Publish, inboxes, topics, streams, schedules and credentials. Errors are "
        "problem documents (RFC 9457)."
    ),
    refuse=problems.problem,
    error_type=Problem,
    failed=problems.problem_response(500, "internal", "this is a fault of ours"),
    never_raised=(UsedUp, RateLimited),
    operations=(
        *PUBLISHING_OPERATIONS,
        *INBOX_OPERATIONS,
        *TOPIC_OPERATIONS,
        STREAM,
        MINT_TOKEN,
        ISSUE_TICKET,
        *CAMPAIGN_OPERATIONS,
    ),
)

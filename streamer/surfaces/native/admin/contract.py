"""
The contract of administration: nodes, connections, traces, presence, disconnecting.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from ....contract.operation import (
    BEARER,
    COOKIE,
    Link,
    Operation,
    ResponseSpec,
    integer,
    query,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    IN_FLIGHT,
    STORE,
    unknown,
)
from ....names import PLAYER_CHARS_MAX
from ....service.inspection.operations import TRACES_MAX
from ....service.inspection.questions import PLAYERS_MAX as ONLINE_MAX
from ..common.body_types import CheckedBody
from ..common.parameters import CALLER_ERRORS, ID, PLAYER
from . import wire

__all__ = ["ADMIN_OPERATIONS"]

PLAYERS: Final = "/v1/admin/players/{player}"
PATH_PLAYER: Final = "$request.path.player"

PRESENCE_BODY: Final = CheckedBody[wire.PresenceBody](wire.PresenceBody)
DISCONNECT_BODY: Final = CheckedBody[wire.DisconnectBody](
    wire.DisconnectBody,
    required=False,
    examples={"all": {}, "for good": {"reconnect": False}},
)

COUNT: Final = integer(
    "notifications",
    "The number of notifications to trace.",
    default=10,
    least=0,
    most=TRACES_MAX,
)
LIMIT: Final = integer(
    "limit", "Maximum number of players.", default=100, least=1, most=ONLINE_MAX
)

_READING: Final = (
    "Requires the scope `admin:read`. Every live node is asked, and answers within a "
    "second; `silent` names those that have not. "
)

NODES: Final = Operation(
    method="GET",
    path="/v1/admin/nodes",
    name="nodes",
    summary="List the nodes, and their connections for the app",
    description=_READING + "A worker is a node.",
    responses=(ResponseSpec(200, "The nodes.", wire.NodesResponse),),
    refusals=(*CALLER_ERRORS, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
CONNECTIONS: Final = Operation(
    method="GET",
    path=f"{PLAYERS}/connections",
    name="connections",
    summary="List the open connections of a player",
    description=_READING,
    parameters=(PLAYER,),
    responses=(ResponseSpec(200, "The connections.", wire.ConnectionsResponse),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
INSPECT: Final = Operation(
    method="GET",
    path=f"{PLAYERS}/inspection",
    name="inspect",
    summary="Find out why a player did not get something",
    description=(
        _READING + "The response has the player's open connections, the last ones that "
        "were closed or refused, and a trace of each of the newest notifications: when "
        "it was stored, announced to nodes, written to connections, acknowledged and "
        "read. Nodes keep what they remember in memory, and forget the oldest."
    ),
    parameters=(PLAYER, COUNT),
    responses=(
        ResponseSpec(
            200,
            "What is known of the player.",
            wire.InspectionResponse,
            links=(
                Link("native.connections", {"player": PATH_PLAYER}),
                Link(
                    "native.trace",
                    {
                        "player": PATH_PLAYER,
                        "id": "$response.body#/notifications/0/id",
                    },
                ),
            ),
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BAD_QUERY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
TRACE: Final = Operation(
    method="GET",
    path=f"{PLAYERS}/notifications/{{id}}/trace",
    name="trace",
    summary="Trace a notification to a player",
    description=_READING + "A notification that has ended is traced, too.",
    parameters=(PLAYER, ID),
    responses=(ResponseSpec(200, "The trace.", wire.TraceResponse),),
    refusals=(
        *CALLER_ERRORS,
        *BAD_PATH,
        *unknown("the notification"),
        *IN_FLIGHT,
        *STORE,
    ),
    security=(BEARER, COOKIE),
)
DISCONNECT: Final = Operation(
    method="POST",
    path=f"{PLAYERS}/disconnect",
    name="disconnect",
    summary="Close the connections of a player",
    description=(
        "Requires the scope `admin:write`. Closes all connections of the player, or "
        "the one named by `connection`. Clients get the close code 4106 and return "
        "within seconds. With `reconnect` false it is 4204, and they stop until the "
        "application connects again. A waiting poll is answered, and its client polls "
        "again in either case. `reason` says why, for the log and the audit log. To "
        "keep a player out, revoke the player's tokens. "
        "`silent` names live nodes that have not answered within a second; their "
        "connections may still be open."
    ),
    parameters=(PLAYER,),
    body=DISCONNECT_BODY,
    responses=(
        ResponseSpec(
            200, "The connections that were closed.", wire.DisconnectedResponse
        ),
    ),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BODY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
ONLINE: Final = Operation(
    method="GET",
    path="/v1/admin/presence",
    name="online",
    summary="List the players that are online",
    description=_READING + "Players are in the order of their names' code points.",
    parameters=(
        LIMIT,
        query(
            "after",
            Annotated[str, Meta(max_length=PLAYER_CHARS_MAX)],
            "The `next` of the previous page.",
        ),
    ),
    responses=(ResponseSpec(200, "A page of players.", wire.OnlineResponse),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
PRESENCE: Final = Operation(
    method="POST",
    path="/v1/admin/presence",
    name="presence",
    summary="Retrieve the presence of several players",
    description=(
        "Requires the scope `admin:read`. Says of up to 1,000 players whether they "
        "have open connections, and when the others were last seen. No node is asked."
    ),
    body=PRESENCE_BODY,
    responses=(
        ResponseSpec(200, "A presence for each player.", wire.PresenceResponse),
    ),
    refusals=(*CALLER_ERRORS, *BODY, *IN_FLIGHT, *STORE),
    security=(BEARER, COOKIE),
)
ADMIN_OPERATIONS: Final = (
    NODES,
    CONNECTIONS,
    INSPECT,
    TRACE,
    DISCONNECT,
    ONLINE,
    PRESENCE,
)

"""
The contract of topics and mutes.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from ....contract.operation import BEARER, COOKIE, Link, Operation, ResponseSpec, path
from ....contract.refusals import (
    BAD_PATH,
    IN_FLIGHT,
    MUTE_LIMIT,
    STORE,
    TOPIC_LIMIT,
    WRITE,
    unknown,
)
from ..common.names import TYPE_CHARS_MAX
from ..common.parameters import CALLER_ERRORS, PLAYER, TOPIC
from ..common.responses import MutesResponse, TopicsResponse

__all__ = ["TOPIC_OPERATIONS"]

TypeName = Annotated[str, Meta(min_length=1, max_length=TYPE_CHARS_MAX)]

TYPE: Final = path("type", TypeName, "The type of notification.", has_slashes=True)
TOPICS_OF: Final = "/v1/players/{player}/topics"
MUTES_OF: Final = "/v1/players/{player}/mutes"
PATH_PLAYER: Final = "$request.path.player"
PATH_TOPIC: Final = {"player": PATH_PLAYER, "topic": "$request.path.topic"}
ABOUT_ONE: Final = (*CALLER_ERRORS, *BAD_PATH, *IN_FLIGHT)

TOPICS: Final = Operation(
    method="GET",
    path=TOPICS_OF,
    name="topics",
    summary="List a player's topics",
    parameters=(PLAYER,),
    responses=(
        ResponseSpec(
            200, "All topics that the player is subscribed to.", TopicsResponse
        ),
    ),
    refusals=(*ABOUT_ONE, *STORE),
    security=(BEARER, COOKIE),
)
JOIN_TOPIC: Final = Operation(
    method="PUT",
    path=f"{TOPICS_OF}/{{topic}}",
    name="joinTopic",
    summary="Subscribe a player to a topic",
    description=(
        "The player receives notifications sent to the topic from now on. A player's "
        "token must name the topic in its claim `topics`; a backend key requires the "
        "scope `notifications:send`. A player can be subscribed to at most 16 topics. "
        "This operation is idempotent."
    ),
    parameters=(PLAYER, TOPIC),
    responses=(
        ResponseSpec(
            204,
            "The player is subscribed.",
            links=(
                Link("native.topics", {"player": PATH_PLAYER}),
                Link("native.muteTopic", PATH_TOPIC),
                Link("native.unmuteTopic", PATH_TOPIC),
                Link("native.leaveTopic", PATH_TOPIC),
            ),
        ),
    ),
    refusals=(*ABOUT_ONE, *TOPIC_LIMIT, *WRITE),
    security=(BEARER, COOKIE),
)
LEAVE_TOPIC: Final = Operation(
    method="DELETE",
    path=f"{TOPICS_OF}/{{topic}}",
    name="leaveTopic",
    summary="Unsubscribe a player from a topic",
    description=(
        "Requires the same rights as subscribing. Earlier notifications of the topic "
        "disappear from the inbox, too. This operation is idempotent."
    ),
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "The player is not subscribed."),),
    refusals=(*ABOUT_ONE, *WRITE),
    security=(BEARER, COOKIE),
)
MUTES: Final = Operation(
    method="GET",
    path=MUTES_OF,
    name="mutes",
    summary="List a player's mutes",
    parameters=(PLAYER,),
    responses=(ResponseSpec(200, "The muted types and topics.", MutesResponse),),
    refusals=(*ABOUT_ONE, *STORE),
    security=(BEARER, COOKIE),
)
MUTE_TYPE: Final = Operation(
    method="PUT",
    path=f"{MUTES_OF}/types/{{type}}",
    name="muteType",
    summary="Mute a type of notification",
    description=(
        "From now on, notifications of this type to this player are not stored, and "
        "the response to their publisher says so. A player can mute at most 100 types. "
        "This operation is idempotent."
    ),
    parameters=(PLAYER, TYPE),
    responses=(ResponseSpec(204, "Muted."),),
    refusals=(*ABOUT_ONE, *MUTE_LIMIT, *WRITE),
    security=(BEARER, COOKIE),
)
UNMUTE_TYPE: Final = Operation(
    method="DELETE",
    path=f"{MUTES_OF}/types/{{type}}",
    name="unmuteType",
    summary="Unmute a type of notification",
    parameters=(PLAYER, TYPE),
    responses=(ResponseSpec(204, "Not muted."),),
    refusals=(*ABOUT_ONE, *WRITE),
    security=(BEARER, COOKIE),
)
MUTE_TOPIC: Final = Operation(
    method="PUT",
    path=f"{MUTES_OF}/topics/{{topic}}",
    name="muteTopic",
    summary="Mute a topic that the player is subscribed to",
    description=(
        "Hides the topic's notifications. They are still stored, and appear when the "
        "topic is unmuted. This operation is idempotent."
    ),
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "Muted."),),
    refusals=(*ABOUT_ONE, *unknown("the topic"), *WRITE),
    security=(BEARER, COOKIE),
)
UNMUTE_TOPIC: Final = Operation(
    method="DELETE",
    path=f"{MUTES_OF}/topics/{{topic}}",
    name="unmuteTopic",
    summary="Unmute a topic",
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "Not muted."),),
    refusals=(*ABOUT_ONE, *WRITE),
    security=(BEARER, COOKIE),
)
TOPIC_OPERATIONS: Final = (
    TOPICS,
    JOIN_TOPIC,
    LEAVE_TOPIC,
    MUTES,
    MUTE_TYPE,
    UNMUTE_TYPE,
    MUTE_TOPIC,
    UNMUTE_TOPIC,
)

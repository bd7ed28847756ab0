"""
What the native surface can be asked about topics and mutes, and what it answers.

Part of `contract`.
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
THE_PLAYER: Final = "$request.path.player"
THE_TOPIC: Final = {"player": THE_PLAYER, "topic": "$request.path.topic"}
ABOUT_ONE: Final = (*CALLER_ERRORS, *BAD_PATH, *IN_FLIGHT)

TOPICS: Final = Operation(
    method="GET",
    path=TOPICS_OF,
    name="topics",
    summary="List a player's topics",
    parameters=(PLAYER,),
    responses=(ResponseSpec(200, "All of them.", TopicsResponse),),
    refusals=(*ABOUT_ONE, *STORE),
    security=(BEARER, COOKIE),
)
JOIN_TOPIC: Final = Operation(
    method="PUT",
    path=f"{TOPICS_OF}/{{topic}}",
    name="joinTopic",
    summary="Let a player have what a topic is sent from now on",
    description=(
        "A player's own token has to name the topic in its claim `topics`; a "
        "backend key needs the scope `notifications:send`. At most 16 topics."
    ),
    parameters=(PLAYER, TOPIC),
    responses=(
        ResponseSpec(
            204,
            "The player has joined it.",
            links=(
                Link("native.topics", {"player": THE_PLAYER}),
                Link("native.muteTopic", THE_TOPIC),
                Link("native.unmuteTopic", THE_TOPIC),
                Link("native.leaveTopic", THE_TOPIC),
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
    summary="Let a player have nothing of a topic any more",
    description=(
        "Needs the same rights as joining. What it was sent is not there either."
    ),
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "The player is not in it."),),
    refusals=(*ABOUT_ONE, *WRITE),
    security=(BEARER, COOKIE),
)
MUTES: Final = Operation(
    method="GET",
    path=MUTES_OF,
    name="mutes",
    summary="List what a player has muted",
    parameters=(PLAYER,),
    responses=(ResponseSpec(200, "Types and topics.", MutesResponse),),
    refusals=(*ABOUT_ONE, *STORE),
    security=(BEARER, COOKIE),
)
MUTE_TYPE: Final = Operation(
    method="PUT",
    path=f"{MUTES_OF}/types/{{type}}",
    name="muteType",
    summary="Mute a type of notification",
    description=(
        "Nothing of it that is sent to this player is stored from now on, and the "
        "sender is told so. At most 100 types."
    ),
    parameters=(PLAYER, TYPE),
    responses=(ResponseSpec(204, "It is muted."),),
    refusals=(*ABOUT_ONE, *MUTE_LIMIT, *WRITE),
    security=(BEARER, COOKIE),
)
UNMUTE_TYPE: Final = Operation(
    method="DELETE",
    path=f"{MUTES_OF}/types/{{type}}",
    name="unmuteType",
    summary="Take the mute of a type back",
    parameters=(PLAYER, TYPE),
    responses=(ResponseSpec(204, "It is not muted."),),
    refusals=(*ABOUT_ONE, *WRITE),
    security=(BEARER, COOKIE),
)
MUTE_TOPIC: Final = Operation(
    method="PUT",
    path=f"{MUTES_OF}/topics/{{topic}}",
    name="muteTopic",
    summary="Mute a topic that the player has joined",
    description="It is shown nowhere until the mute is taken back; then all of it is.",
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "It is muted."),),
    refusals=(*ABOUT_ONE, *unknown("the topic"), *WRITE),
    security=(BEARER, COOKIE),
)
UNMUTE_TOPIC: Final = Operation(
    method="DELETE",
    path=f"{MUTES_OF}/topics/{{topic}}",
    name="unmuteTopic",
    summary="Take the mute of a topic back",
    parameters=(PLAYER, TOPIC),
    responses=(ResponseSpec(204, "It is not muted."),),
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

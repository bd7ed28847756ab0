"""
Names in bodies and paths: players, topics and types of notifications.

Decides how decoders apply the rules of `streamer.names`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from ....errors import FieldError, Invalid
from ....names import (
    PLAYER_CHARS_MAX,
    PLAYER_PATTERN,
    TOPIC_PATTERN,
    Player,
    Topic,
    parse_player,
    parse_topic,
)
from .body_types import Where

__all__ = [
    "TYPE_CHARS_MAX",
    "PlayerText",
    "TopicText",
    "player_in_path",
    "players_named",
    "topic_in_path",
    "topic_named",
    "type_in_path",
]

TYPE_CHARS_MAX: Final = 255

# A problem with such a value says that it is not what the title names.
PlayerText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=PLAYER_CHARS_MAX,
        pattern=rf"\A{PLAYER_PATTERN}\Z",
        title="a player name",
    ),
]
TopicText = Annotated[str, Meta(pattern=rf"\A{TOPIC_PATTERN}\Z", title="a topic")]


def players_named(
    texts: Sequence[str], where: Where, problems: list[FieldError]
) -> list[Player]:
    """
    Return the players of strings that were decoded as `PlayerText`.

    Adds to `problems`, with `where` as their list, those that are no names after all.
    """
    players = []
    for i, text in enumerate(texts):
        if player := parse_player(text):
            players.append(player)
        else:
            problems.append(FieldError((*where, i), "is not a player name"))
    return players


def topic_named(text: str) -> Topic:
    """Return the topic of a string decoded as `TopicText`."""
    topic = parse_topic(text)
    assert topic is not None
    return topic


def player_in_path(text: str) -> Player:
    """Return the player of a path. Raises Invalid."""
    if player := parse_player(text):
        return player
    raise Invalid(FieldError(("path", "player"), "is not a player name"))


def topic_in_path(text: str) -> Topic:
    """Return the topic of a path. Raises Invalid."""
    if topic := parse_topic(text):
        return topic
    raise Invalid(FieldError(("path", "topic"), "is not a topic"))


def type_in_path(text: str) -> str:
    """Return the type of notification of a path. Raises Invalid."""
    if 1 <= len(text) <= TYPE_CHARS_MAX:
        return text
    problem = f"must have 1 to {TYPE_CHARS_MAX} characters"
    raise Invalid(FieldError(("path", "type"), problem))

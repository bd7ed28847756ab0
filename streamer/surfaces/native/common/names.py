"""
Names in bodies and paths: players, topics and types of notifications.

Decides how decoders apply the rules of `model`. Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from ....errors import FieldError, Invalid
from ....model import (
    PLAYER_CHARS_MAX,
    TOPIC_PATTERN,
    Player,
    Topic,
    parse_player,
    parse_topic,
)

__all__ = [
    "TYPE_CHARS_MAX",
    "PlayerText",
    "TopicText",
    "player_in_path",
    "player_named",
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
        pattern=r"\A(?!me\Z)[^\x00-\x1f\x7f]+\Z",
        title="a player name",
    ),
]
TopicText = Annotated[str, Meta(pattern=rf"\A{TOPIC_PATTERN}\Z", title="a topic")]


def player_named(text: str) -> Player:
    """Return the player of a string decoded as `PlayerText`."""
    player = parse_player(text)
    # The pattern allows surrogates, but no decoded string has any.
    assert player is not None
    return player


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

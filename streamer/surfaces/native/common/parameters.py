"""
Words that the parts of the native surface's contract have in common.

Decides nothing: types of values outside of bodies, and bundles of errors.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from ....contract.operation import UUID, Parameter, integer, path
from ....contract.refusals import CREDENTIAL, FOREIGN_ORIGIN, RIGHT
from ....model import CURSOR_CHARS_MAX, PLAYER_CHARS_MAX, TOPIC_PATTERN

__all__ = [
    "CALLER_ERRORS",
    "ID",
    "INBOX",
    "LIMIT",
    "PLAYER",
    "TOPIC",
    "Count",
    "Cursor",
    "Id",
    "TopicName",
]

Id = Annotated[str, UUID]
Cursor = Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0)]
PlayerName = Annotated[
    str,
    Meta(min_length=1, max_length=PLAYER_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$"),
]
TopicName = Annotated[str, Meta(pattern=f"^{TOPIC_PATTERN}$")]

PLAYER: Final[Parameter] = path(
    "player",
    PlayerName,
    "The player's name, or `me` for the player of the token.",
    has_slashes=True,
)
TOPIC: Final[Parameter] = path("topic", TopicName, "The topic.", has_slashes=True)
ID: Final[Parameter] = path("id", str, "Its id.")
LIMIT: Final = integer("limit", "How many.", default=20, least=1, most=100)

INBOX: Final = "/v1/players/{player}/notifications"
CALLER_ERRORS: Final = (*CREDENTIAL, *RIGHT, *FOREIGN_ORIGIN)
"""What may go wrong with who asks, on all that is no stream."""

"""
Parameters and errors that operations of the native surface share.

Decides nothing: types of values outside bodies, and bundles of errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta

from ....contract.operation import UUID, Parameter, integer, path, query
from ....contract.refusals import CREDENTIAL, FOREIGN_ORIGIN, RIGHT
from ....errors import FieldError, Invalid
from ....model import CURSOR_CHARS_MAX
from ....names import PLAYER_CHARS_MAX, PLAYER_PATTERN, TOPIC_PATTERN

__all__ = [
    "CALLER_ERRORS",
    "ID",
    "INBOX",
    "LIMIT",
    "PLAYER",
    "PURGE",
    "REASON",
    "REASON_CHARS_MAX",
    "TOPIC",
    "Count",
    "Cursor",
    "Id",
    "TopicName",
    "read_purge",
    "read_reason",
]

Id = Annotated[str, UUID]
Cursor = Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0)]
REASON_CHARS_MAX: Final = 500

PlayerName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=PLAYER_CHARS_MAX,
        # As `names.PLAYER_PATTERN`, but `me` is valid in a path.
        pattern=rf"^(?:me|{PLAYER_PATTERN})$".replace(r"\Z", "$"),
    ),
]
TopicName = Annotated[str, Meta(pattern=f"^{TOPIC_PATTERN}$")]

PLAYER: Final[Parameter] = path(
    "player",
    PlayerName,
    "Name of the player, or `me` for the player of the token.",
    has_slashes=True,
)
TOPIC: Final[Parameter] = path(
    "topic", TopicName, "Name of the topic.", has_slashes=True
)
ID: Final[Parameter] = path("id", str, "Id of the notification.")
LIMIT: Final = integer(
    "limit", "Maximum number of items.", default=20, least=1, most=100
)

PURGE: Final = query(
    "purge",
    Literal["true", "false"],
    "Also remove the text from the store, at once.",
    default="false",
)
REASON: Final = query(
    "reason",
    Annotated[str, Meta(max_length=REASON_CHARS_MAX)],
    "Why, for the audit log.",
)

INBOX: Final = "/v1/players/{player}/notifications"

CALLER_ERRORS: Final = (*CREDENTIAL, *RIGHT, *FOREIGN_ORIGIN)
"""Errors about the caller, of all operations but streams."""


def read_purge(query: Mapping[str, str]) -> bool:
    """Return the value of `PURGE`. Raises Invalid."""
    text = query.get(PURGE.name, "false")
    if text in ("true", "false"):
        return text == "true"
    raise Invalid(FieldError(("query", PURGE.name), "must be true or false"))


def read_reason(query: Mapping[str, str]) -> str:
    """Return the value of `REASON`, "" without one. Raises Invalid."""
    text = query.get(REASON.name, "")
    if len(text) <= REASON_CHARS_MAX:
        return text
    problem = f"must have at most {REASON_CHARS_MAX} characters"
    raise Invalid(FieldError(("query", REASON.name), problem))

"""
Names of apps, players and topics: which are valid.

Decides nothing about what has such a name.
"""

from __future__ import annotations

import re
import uuid
from typing import Final, NewType

__all__ = [
    "PLAYER_CHARS_MAX",
    "TOPIC_PATTERN",
    "App",
    "Player",
    "Topic",
    "parse_app",
    "parse_player",
    "parse_topic",
]

App = NewType("App", str)
"""Name of a tenant: 1 to 64 letters, digits, ``_`` or ``-``."""

Player = NewType("Player", str)
"""A recipient's normalised name within its app; see `parse_player`."""

Topic = NewType("Topic", str)
"""Name of a topic within its app; see `parse_topic`."""

TOPIC_PATTERN: Final = r"[A-Za-z0-9_.:/-]{1,128}"

_APP = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)
_TOPIC_NAME = re.compile(TOPIC_PATTERN, re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_CROCKFORD = {digit: i for i, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}

PLAYER_CHARS_MAX: Final = 128
UUID_CHARS: Final = 36
ULID_CHARS: Final = 26


def parse_app(text: str) -> App | None:
    """Return `text` as the name of an app, or None if it is not a valid one."""
    return App(text) if _APP.fullmatch(text) else None


def parse_player(text: str) -> Player | None:
    """
    Return the player that `text` names, or None if it is not a valid name.

    A dashed UUID in either case and a ULID are two spellings of the same 128 bits and
    give the same player, spelled as a lower-case UUID. Any other string of 1 to 128
    characters without control characters stands for itself, but for ``me``, which
    the paths use for the caller.
    """
    # Most names are neither. Their length shows that, and is cheaper to compare.
    chars = len(text)
    if chars == UUID_CHARS and _UUID.fullmatch(text):
        return Player(text.lower())
    if chars == ULID_CHARS and _ULID.fullmatch(text):
        number = 0
        for char in text:
            number = number << 5 | _CROCKFORD[char]
        return Player(str(uuid.UUID(int=number)))
    if not 1 <= chars <= PLAYER_CHARS_MAX or text == "me" or _CONTROL.search(text):
        return None
    return Player(text)


def parse_topic(text: str) -> Topic | None:
    """Return `text` as a topic: 1 to 128 letters, digits or any of ``_ . : / -``."""
    return Topic(text) if _TOPIC_NAME.fullmatch(text) else None

"""
Names of apps, players and topics: which are valid, and which are the same.

The names of apps and topics are ASCII, and compared byte by byte. A player's name is
whatever the app's issuer of ids makes, and libraries spell one id in several ways. So
a name has one spelling by which players are told apart, and responses repeat the one
that the request had. ``docs/decisions/0043`` has the reasons.

* A UUID is a player in every spelling: in either case, with or without dashes, in
  braces, or after ``urn:uuid:``. So is the ULID of the same 128 bits. No two UUIDs
  become one.
* Any other name stands for itself, in Unicode's normalization form C: what looks and is
  the same text in composed and in decomposed characters is one player. Nothing else is
  equated: not case, not width, not what looks alike.
* What nobody sees is refused, since it would make two players of one name: control and
  zero-width characters, white space at the ends.

Decides nothing about what has such a name.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Final, NewType

__all__ = [
    "PLAYER_CHARS_MAX",
    "PLAYER_PATTERN",
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

PLAYER_CHARS_MAX: Final = 128

_INVISIBLE: Final = (
    # Controls, and the soft hyphen.
    r"\x00-\x1f\x7f-\x9f\xad"
    # Default ignorable code points: fillers, directional marks, joiners of words.
    r"\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    # Surrogates, noncharacters, and what decoders put in the place of invalid bytes.
    r"\ud800-\udfff\ufdd0-\ufdef\ufff0-\uffff"
)
# Default ignorable code points beyond 0xFFFF, which not every regex can name.
_INVISIBLE_BEYOND: Final = (
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_RESERVED: Final = ("me", ".", "..")
"""``me`` is the caller; the others are removed from paths on their way."""

PLAYER_PATTERN: Final = rf"(?!(?:me|\.\.?)\Z)(?!\s)[^{_INVISIBLE}]+(?<!\s)"
"""
What a regular expression can say of a player's name; `parse_player` has the whole rule.
"""

_APP = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TOPIC_NAME = re.compile(TOPIC_PATTERN, re.ASCII)
_DASHED = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_UUID = re.compile(
    r"(?:urn:uuid:|(\{))?[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\2){3}[0-9a-f]{12}(?(1)\})",
    re.ASCII | re.IGNORECASE,
)
_ULID = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}", re.ASCII | re.IGNORECASE)
_BITS_CHARS: Final = frozenset({26, 32, 34, 36, 38, 41, 45})
"""Lengths of the spellings of 128 bits. Most names have another, quick to see."""
_CROCKFORD = {digit: i for i, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}

_UNSEEN = re.compile(
    # Joiners and variation selectors change what they follow in emoji and in scripts
    # other than Latin. After an ASCII character they are invisible.
    rf"[{_INVISIBLE}{_INVISIBLE_BEYOND}] | (?:\A|(?<=[\x00-\x7f]))"
    r"[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]",
    re.VERBOSE,
)


def parse_app(text: str) -> App | None:
    """Return `text` as the name of an app, or None if it is not a valid one."""
    return App(text) if _APP.fullmatch(text) else None


def parse_player(text: str) -> Player | None:
    """
    Return the player that `text` names, or None if it is not a valid name.

    The result is the spelling by which players are told apart: a lower-case UUID with
    dashes for the 128 bits of a UUID or ULID, and any other name in normalization form
    C. A name has 1 to 128 characters in either spelling, none that is invisible, and no
    white space at its ends. ``me``, which is the caller in paths, is no name.
    """
    chars = len(text)
    if not 1 <= chars <= PLAYER_CHARS_MAX:
        return None
    if not text.isascii():
        return _parse_unicode(text)
    if chars in _BITS_CHARS and (player := _parse_bits(text)):
        return player
    # For ASCII, what is printable is all but controls; this takes no regex.
    if not text.isprintable() or text[0] == " " or text[-1] == " ":
        return None
    return None if text in _RESERVED else Player(text)


def _parse_unicode(text: str) -> Player | None:
    if _UNSEEN.search(text):
        return None
    normal = unicodedata.normalize("NFC", text)
    # Some single characters are equivalent to one in ASCII, as the kelvin sign to K.
    if normal.isascii():
        return parse_player(normal)
    if len(normal) > PLAYER_CHARS_MAX or normal[0].isspace() or normal[-1].isspace():
        return None
    return Player(normal)


def _parse_bits(text: str) -> Player | None:
    """Return the player if `text` spells 128 bits, as a UUID or as a ULID."""
    if _DASHED.fullmatch(text):
        return Player(text.lower())
    if _UUID.fullmatch(text):
        return Player(str(uuid.UUID(text.lower())))
    if not _ULID.fullmatch(text):
        return None
    number = 0
    for char in text.upper():
        number = number << 5 | _CROCKFORD[char]
    return Player(str(uuid.UUID(int=number)))


def parse_topic(text: str) -> Topic | None:
    """Return `text` as a topic: 1 to 128 letters, digits or any of ``_ . : / -``."""
    return Topic(text) if _TOPIC_NAME.fullmatch(text) else None

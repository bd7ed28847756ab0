"""
Where a client is: a place in its player's log, and one in each audience it hears.

Decides how such a cursor is written. Knows positions. Knows nothing of what is at them.

A cursor is a vector. The place in the player's own log comes first; for each audience
that its stream hears, a part follows::

    <27 characters> { "." <6 characters: which audience> [<27 characters: where>] }

An audience of which nothing had come yet has no place, and is named all the same: else
the first that it says would be lost on who is cut off before it has come, and has by
then been given something of its own that is later.

An audience that is not named is heard from the moment of the own place on: what came
later comes, at the risk of coming twice. That is what makes a bare notification id a
good cursor, and a page's ``next``. Which audience is a checksum of its name, since a
name may be long; where two of one player's audiences had the same one, a place would be
taken for another log's, whose tags do not fit it, and so be a gap and no silent loss.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from ...model import CURSOR_CHARS_MAX, ZERO, Log, Position, decode_cursor, encode_cursor

__all__ = ["NO_AUDIENCES", "Cursor", "audience_key", "part_of", "tail_of"]

NO_AUDIENCES: Final[Mapping[str, Position]] = MappingProxyType({})

_KEY_CHARS: Final = 6
_PART: Final = re.compile(r"[A-Za-z0-9_-]{6}(?:[A-Za-z0-9_-]{27})?", re.ASCII)


class Cursor(NamedTuple):
    """A client's place. `audiences` has those named, by `audience_key`."""

    own: Position
    audiences: Mapping[str, Position] = NO_AUDIENCES

    @property
    def text(self) -> str:
        """The cursor as an opaque string, safe in a URL: 27 characters and more."""
        return encode_cursor(self.own) + "".join(
            _part(key, position) for key, position in self.audiences.items()
        )

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Return what `text`, a cursor or a bare notification id, names, or None."""
        if len(text) > CURSOR_CHARS_MAX:
            return None
        first, *parts = text.split(".")
        own = decode_cursor(first)
        if own is None:
            return None
        if not parts:
            return cls(own)
        audiences = {}
        for part in parts:
            key, written = part[:_KEY_CHARS], part[_KEY_CHARS:]
            position = decode_cursor(written) if written else ZERO
            # A place that is none is not written.
            if (
                not _PART.fullmatch(part)
                or position is None
                or (written and position is ZERO)
            ):
                return None
            audiences[key] = position
        return cls(own, audiences)


@lru_cache(maxsize=4096)
def audience_key(audience: Log) -> str:
    """Return what stands for an audience in a cursor."""
    checksum = zlib.crc32(audience.name.encode()).to_bytes(4)
    return base64.urlsafe_b64encode(checksum)[:_KEY_CHARS].decode()


def tail_of(positions: Iterable[tuple[Log, Position]]) -> str:
    """Return what follows the own place in the text of a cursor."""
    return "".join([part_of(log, position) for log, position in positions])


def part_of(log: Log, position: Position) -> str:
    """Return the part for one audience."""
    return _part(audience_key(log), position)


@lru_cache(maxsize=1024)
def _part(key: str, position: Position) -> str:
    # Most of those who hear an audience are at the same place in it.
    return f".{key}{'' if position.is_zero else encode_cursor(position)}"

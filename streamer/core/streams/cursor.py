"""
Cursors: a client's position in its player's log and in the log of each audience.

Decides how a cursor is written. Knows positions. Knows nothing of the entries at them.

A cursor is a vector of positions. The position in the player's own log comes first; one
part for each audience of the stream follows::

    <27 characters> { "." <6 characters: audience key> [<27 characters: position>] }

An audience without any entry yet has no position, but has a part all the same.
Otherwise a client that loses its connection before the audience's first entry arrives,
and has by then got a later entry of its own log, would lose that first entry.

An audience without a part is resumed from the time of the own position: everything
later is delivered, at the risk of delivering it twice. That makes a bare notification
id a valid cursor, and a page's ``next``, too. The audience key is a checksum of the
audience's name, since a name may be long. If two audiences of one player had the same
key, one's position would be used for the other's log. The tag does not match there, so
that the result is a gap and never a silent loss.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from ...model import (
    CURSOR_CHARS_MAX,
    ZERO,
    Log,
    Position,
    decode_position,
    encode_position,
)

__all__ = ["NO_AUDIENCES", "Cursor", "audience_key", "part_of", "tail_of"]

NO_AUDIENCES: Final[Mapping[str, Position]] = MappingProxyType({})

_KEY_CHARS: Final = 6
_PART: Final = re.compile(r"[A-Za-z0-9_-]{6}(?:[A-Za-z0-9_-]{27})?", re.ASCII)


class Cursor(NamedTuple):
    """A client's positions. `audiences` has those with a part, by `audience_key`."""

    own: Position
    audiences: Mapping[str, Position] = NO_AUDIENCES

    @property
    def text(self) -> str:
        """The cursor as an opaque string, safe in a URL: 27 characters and more."""
        parts = [_part(key, position) for key, position in self.audiences.items()]
        return encode_position(self.own) + "".join(parts)

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Return what `text`, a cursor or a bare notification id, names, or None."""
        if len(text) > CURSOR_CHARS_MAX:
            return None
        first, *parts = text.split(".")
        own = decode_position(first)
        if own is None:
            return None
        if not parts:
            return cls(own)
        audiences = {}
        for part in parts:
            key, written = part[:_KEY_CHARS], part[_KEY_CHARS:]
            position = decode_position(written) if written else ZERO
            # The zero position is written as no characters.
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
    """Return the key of an audience in a cursor, 6 characters."""
    checksum = zlib.crc32(audience.name.encode()).to_bytes(4)
    return base64.urlsafe_b64encode(checksum)[:_KEY_CHARS].decode()


def tail_of(positions: Iterable[tuple[Log, Position]]) -> str:
    """Return the parts that follow the own position in the text of a cursor."""
    return "".join([part_of(log, position) for log, position in positions])


def part_of(log: Log, position: Position) -> str:
    """Return the part of a cursor for one audience."""
    return _part(audience_key(log), position)


@lru_cache(maxsize=1024)
def _part(key: str, position: Position) -> str:
    # Most readers of an audience are at the same position in it.
    return f".{key}{'' if position.is_zero else encode_position(position)}"

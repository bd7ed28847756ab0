"""
Entries of a log as JSON.

Decides nothing: how an entry is written is `model.entry_json`, and a read mark goes
behind what the publisher has said. In C (``entries.c``) a page of 20 takes a fifth of
what it takes here, where nearly all of it is making numbers into digits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from ..model import entry_json, iso_time
from .library import find

__all__ = ["FEW", "Row", "join_entries"]

FEW: Final = 4
"""For fewer entries the way to C and back takes longer than it saves."""

_BESIDE_FRAGMENT: Final = 124
"""How many bytes an entry takes at most, its fragment left out (``entries.c``)."""

_in_c: Final = find(
    "streamer_join_entries",
    "c_void_p",
    "c_long",
    "c_char_p",
    "c_char_p",
    "c_char_p",
    "c_size_t",
    "c_void_p",
)


Row = tuple[bytes, bytes, bytes, int]
"""
An entry as a log has it: ``<ms>-<offset>``, its tag in digits, what it says as
`model.encode_fragment` made it; and when it was marked as read, in ms, 0 for not.
"""


def join_entries(rows: Sequence[Row]) -> bytes:
    """
    Return entries as JSON objects with commas between, each with its id and its times.

    Raises:
        ValueError, OverflowError: A place or a tag is none.

    """
    if _in_c is not None and len(rows) >= FEW:
        places, tags, fragments, marks = zip(*rows, strict=True)
        text = b"\n".join(fragments)  # Each is one line.
        room = array("b", bytes(len(text) + _BESIDE_FRAGMENT * len(rows)))
        address, _ = room.buffer_info()
        # It has to be there for as long as the call takes.
        read_at_ms = array("q", marks)
        size = _in_c(
            address,
            len(rows),
            b" ".join(places),
            b" ".join(tags),
            text,
            len(text),
            read_at_ms.buffer_info()[0] if any(marks) else None,
        )
        if size >= 0:
            return memoryview(room)[:size].tobytes()
    return b",".join([_in_python(*row) for row in rows])


def _in_python(place: bytes, tag: bytes, fragment: bytes, read_at_ms: int) -> bytes:
    at_ms, _, offset = place.partition(b"-")
    text = entry_json(int(at_ms), int(offset), int(tag), fragment)
    if not read_at_ms:
        return text
    return b'%b,"read_at":"%b"}' % (text[:-1], iso_time(read_at_ms).encode())

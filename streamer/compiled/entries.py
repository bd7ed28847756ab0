"""
Entries of a log as JSON.

Decides nothing: `model.entry_json` defines the form, and a read mark is appended to the
publisher's members. ``entries.c`` encodes a page of 20 in a fifth of the time of this
module, which spends nearly all of it on formatting numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from ..model import entry_json, iso_time
from .library import find

__all__ = ["FEW", "Row", "join_entries"]

FEW: Final = 4
"""For fewer entries the call into C takes longer than it saves."""

_BESIDE_FRAGMENT: Final = 124
"""Maximum size of an encoded entry without its fragment (``entries.c``)."""

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
An entry of a log: its stream id ``<at_us>-<offset>``, its tag in decimal, its fragment
as `model.encode_fragment` returns it, and the Unix ms of its read mark, 0 for none.
"""


def join_entries(rows: Sequence[Row]) -> bytes:
    """
    Return entries as JSON objects, separated by commas, each with its id and times.

    Raises:
        ValueError, OverflowError: A stream id or a tag is invalid.

    """
    if _in_c is not None and len(rows) >= FEW:
        stream_ids, tags, fragments, marks = zip(*rows, strict=True)
        text = b"\n".join(fragments)  # Each is one line.
        room = array("b", bytes(len(text) + _BESIDE_FRAGMENT * len(rows)))
        address, _ = room.buffer_info()
        # The array has to exist until the call returns.
        read_at_ms = array("q", marks)
        size = _in_c(
            address,
            len(rows),
            b" ".join(stream_ids),
            b" ".join(tags),
            text,
            len(text),
            read_at_ms.buffer_info()[0] if any(marks) else None,
        )
        if size >= 0:
            return memoryview(room)[:size].tobytes()
    return b",".join([_in_python(*row) for row in rows])


def _in_python(stream_id: bytes, tag: bytes, fragment: bytes, read_at_ms: int) -> bytes:
    at_us, _, offset = stream_id.partition(b"-")
    text = entry_json(int(at_us), int(offset), int(tag), fragment)
    if not read_at_ms:
        return text
    return b'%b,"read_at":"%b"}' % (text[:-1], iso_time(read_at_ms).encode())

"""
Notifications as events.

Decides nothing: the transport's codec says what stands around a notification and its
cursor, and `model` how both are written. ``entries.c`` writes a hundred events in a
quarter of the time of this module.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Final, NamedTuple

from ..model import Entry
from .library import find

__all__ = ["FEW", "Form", "write_events"]

FEW: Final = 4
"""For fewer entries the call into C takes longer than it saves."""

_CURSOR_BYTES: Final = 27
_BESIDE_FRAGMENT: Final = 85
"""Sizes of the parts of an event (``entries.c``)."""

_in_c: Final = find(
    "streamer_write_events",
    "c_void_p",
    "c_long",
    *["c_char_p"] * 3,
    *["c_char_p", "c_long"] * 3,
)


class Form(NamedTuple):
    """
    What stands around the parts of an event.

    The event is `before`, the entry's position as a cursor, `between`, the notification
    and `after`. Without a cursor `between` is None.
    """

    before: bytes
    between: bytes | None
    after: bytes


def write_events(entries: Sequence[Entry], form: Form) -> list[bytes]:
    """
    Return the event of each entry.

    Raises:
        ValueError, OverflowError, struct.error: A position is invalid.

    """
    if _in_c is not None and len(entries) >= FEW:
        before, between, after = form
        beside = len(before) + _BESIDE_FRAGMENT + len(after)
        if between is not None:
            beside += _CURSOR_BYTES + len(between)
        fragments = [entry.fragment for entry in entries]
        sizes = [len(fragment) for fragment in fragments]
        ends = [0, *accumulate([size + beside for size in sizes])]
        positions = chain.from_iterable([entry[:4] for entry in entries])
        room = array("b", bytes(ends[-1]))
        size = _in_c(
            room.buffer_info()[0],  # It has to exist until the call returns.
            len(entries),
            struct.pack(f"{4 * len(entries)}Q", *positions),
            b"".join(fragments),
            struct.pack(f"{len(entries)}Q", *sizes),
            before,
            len(before),
            between or b"",
            -1 if between is None else len(between),
            after,
            len(after),
        )
        if size == ends[-1]:
            text = room.tobytes()
            return [text[begin:end] for begin, end in pairwise(ends)]
    return [_in_python(entry, form) for entry in entries]


def _in_python(entry: Entry, form: Form) -> bytes:
    before, between, after = form
    if between is None:
        return b"%b%b%b" % (before, entry.json, after)
    cursor, json = entry.cursor_and_json
    return b"%b%b%b%b%b" % (before, cursor, between, json, after)

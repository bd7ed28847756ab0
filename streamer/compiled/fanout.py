"""
One event to many sockets.

Decides nothing: this is the inner loop of a fan-out, one `send` per socket and as
little else as possible. ``fanout.c`` takes an eighth less time than this module: Python
spends half a microsecond of seven around each call, and `send` is a shorter path
through the kernel than `write`. Knows sockets by their descriptors. The caller has to
ensure that a descriptor still belongs to its connection.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import Final

from .library import find

__all__ = ["FEW", "send_to_all"]

FEW: Final = 8
"""For fewer sockets the call into C takes longer than it saves."""

_in_c: Final = find(
    "streamer_send_to_all", "c_void_p", "c_long", "c_char_p", "c_size_t"
)


def send_to_all(sockets: Sequence[int], event: bytes) -> list[tuple[int, int]]:
    """
    Send an event to sockets without waiting. Negative descriptors are skipped.

    Returns the sockets that have not accepted the whole event, as pairs of index in
    `sockets` and number of bytes accepted. That is 0 if the buffer is full, the
    connection is broken, or the socket was skipped. Raises nothing. O(sockets).
    """
    if _in_c is None or len(sockets) < FEW:
        return _in_python(sockets, event)
    accepted, size = array("i", sockets), len(event)
    if _in_c(accepted.buffer_info()[0], len(accepted), event, size) == len(accepted):
        return []
    return [(i, sent) for i, sent in enumerate(accepted) if sent < size]


def _in_python(sockets: Sequence[int], event: bytes) -> list[tuple[int, int]]:
    short, size, write = [], len(event), os.write
    for i, socket in enumerate(sockets):
        try:
            sent = write(socket, event) if socket >= 0 else 0
        except OSError:
            sent = 0
        if sent < size:
            short.append((i, sent))
    return short

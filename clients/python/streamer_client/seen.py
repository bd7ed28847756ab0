"""
Which notifications a stream has brought before.

A stream that resumes delivers each once; a client drops repeats by id all the same,
because a cursor may be older than what was received. Within one connection nothing is
dropped: the server's order is the truth there.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Seen"]

IDS_MAX: Final = 1_024
"""More than a server replays at once (500), in about 100 KiB."""


class Seen:
    """The ids of the last notifications, with the connection that brought them."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._ids: dict[str, int] = {}
        self._ids_max = ids_max
        self._connection = 0

    def reconnected(self) -> None:
        """Take everything so far for brought by an earlier connection."""
        self._connection += 1

    def is_repeat(self, id: str) -> bool:
        """Remember `id`; return whether an earlier connection brought it."""
        if self._ids.setdefault(id, self._connection) != self._connection:
            return True
        if len(self._ids) > self._ids_max:
            del self._ids[next(iter(self._ids))]
        return False

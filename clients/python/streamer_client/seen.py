"""
Which notifications a stream has brought before.

A stream that resumes brings again what was sent to topics and to everyone and had not
got its cursor yet, and more where a cursor is older than what was received. Repeats are
dropped by id. Within one connection nothing is: the server's order is the truth there.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SeenIds"]

IDS_MAX: Final = 2_048
"""What a server replays at once (500), of several audiences; in about 400 KiB."""


class SeenIds:
    """The ids of the last notifications, with the connection that brought them."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._ids: dict[str, int] = {}
        self._ids_max = ids_max
        self._connection = 0

    def begin_connection(self) -> None:
        """Take everything so far for brought by an earlier connection."""
        self._connection += 1

    def was_delivered_before(self, id: str) -> bool:
        """Return whether an earlier connection brought `id`; remember nothing."""
        return self._ids.get(id, self._connection) != self._connection

    def is_repeat(self, id: str) -> bool:
        """Remember `id`; return whether an earlier connection brought it."""
        if self._ids.setdefault(id, self._connection) != self._connection:
            return True
        if len(self._ids) > self._ids_max:
            del self._ids[next(iter(self._ids))]
        return False

"""
The ids of notifications that earlier connections of a stream have delivered.

A stream that resumes delivers notifications to topics and to everyone again if the
client had not received their cursor, and more if it resumes from an older cursor.
Repeats are dropped by id. Within one connection nothing is dropped: there the server
decides.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SeenIds"]

IDS_MAX: Final = 2_048
"""Room for the replays (500 each) of several audiences; about 400 KiB."""


class SeenIds:
    """The ids of the last notifications, with the connection that delivered them."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._ids: dict[str, int] = {}
        self._ids_max = ids_max
        self._connection = 0

    def begin_connection(self) -> None:
        """Regard all ids so far as delivered by an earlier connection."""
        self._connection += 1

    def was_delivered_before(self, id: str) -> bool:
        """Return whether an earlier connection delivered `id`; remember nothing."""
        return self._ids.get(id, self._connection) != self._connection

    def is_repeat(self, id: str) -> bool:
        """Remember `id`; return whether an earlier connection delivered it."""
        if self._ids.setdefault(id, self._connection) != self._connection:
            return True
        if len(self._ids) > self._ids_max:
            del self._ids[next(iter(self._ids))]
        return False

"""
Purging: removing the text of a notification from the store.

Decides where the text of one notification is: in a log, and in the record of the
schedule that has sent it to that log alone. The texts that others have got stay theirs.
Knows nothing of rights.
"""

from __future__ import annotations

from ...model import Log, Position
from ...store.logs.inbox import Inbox
from ...store.scheduling.timetable import Timetable

__all__ = ["Purging"]


class Purging:
    """
    Purges notifications.

    Args:
        inbox: All logs.
        timetable: All schedules.

    """

    def __init__(self, inbox: Inbox, timetable: Timetable) -> None:
        self._inbox = inbox
        self._timetable = timetable

    async def purge(self, log: Log, position: Position) -> bool:
        """
        Remove the text of the entry at `position`; return whether there is the entry.

        An entry that has not ended is withdrawn. It keeps its position, so reading,
        resuming, acknowledging and marking go on without a gap. Idempotent: a call that
        failed half way is repeated. O(entries of the log), and O(schedules of the app
        in the log's bucket). Raises StoreUnavailable, OutcomeUnknown.
        """
        fragment = await self._inbox.fragment_at(log, position)
        if fragment is None:
            return False
        if fragment:
            # First: afterwards nothing tells which schedule has sent it.
            await self._timetable.purge_sent(log, fragment)
        return await self._inbox.purge(log, position)

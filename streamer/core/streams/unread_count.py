"""
The number of unread notifications that a stream has announced to its client.

Decides when the number is wrong and has to be corrected. Knows numbers only.

A stream counts what it delivers, and checks its number against the store's now and
then. The two are taken at different moments: the store may count an audience's
notification that the stream has not delivered yet. So a single difference does not
correct the client; the same difference in two checks does. After a withdrawal, a
replacement or a gap the stream's own number is a guess, and the next check corrects it
at once.
"""

from __future__ import annotations

import msgspec

__all__ = ["UnreadCount"]


# One per connection, and without references: the garbage collector can ignore it.
class UnreadCount(msgspec.Struct, gc=False):
    """
    The unread notifications of one stream.

    A stream that is in a group of readers does not count what the group delivers. So
    the number has two parts: `counted`, which is kept here, and `grouped`, which the
    caller passes in.
    """

    counted: int = 0
    _difference: int | None = 0
    """The last check's difference, None if any difference is to be believed."""

    @property
    def is_confirmed(self) -> bool:
        """Whether the last check found no difference and none is expected since."""
        return self._difference == 0

    def set(self, unread: int, grouped: int) -> None:
        """Set the number to the one that the client is sent now."""
        self.counted = unread - grouped

    def mark(self, unread: int, grouped: int) -> None:
        """Set the number to the one that comes with a read mark."""
        self.set(unread, grouped)
        if self._difference is not None:
            self._difference = 0

    def distrust(self) -> None:
        """Believe the next check, whatever difference it finds."""
        self._difference = None

    def check(self, unread: int, grouped: int) -> bool:
        """
        Compare the number with the store's; return whether the client is to be sent it.
        """
        last, difference = self._difference, unread - self.counted - grouped
        is_corrected = difference != 0 and last in (None, difference)
        if is_corrected:
            self.set(unread, grouped)
        self._difference = 0 if is_corrected else difference
        return is_corrected

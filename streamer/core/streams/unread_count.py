"""
The number of unread notifications that a stream has announced to its client.

Decides when that number differs from the store's for good. Knows numbers only.

A stream counts what it delivers; only now and then the store is asked for the true
number. The two are read at different moments: an audience's notification that is on its
way when the store counts is not delivered yet. So a difference that is seen once is no
reason to correct the client; the same difference seen twice is. After a withdrawal, a
replacement or a gap the stream's own number is a guess, and the next difference is
believed at once.
"""

from __future__ import annotations

import msgspec

__all__ = ["UnreadCount"]


# One per connection, without references: the garbage collector need not know it.
class UnreadCount(msgspec.Struct, gc=False):
    """
    The unread notifications of one stream.

    A stream that is in a group of readers does not count what the group is given. So
    the number has two parts: `counted`, which is kept here, and `grouped`, which the
    caller passes in.
    """

    counted: int = 0
    _difference: int | None = 0
    """What the last check found, None where the next one is to be believed."""

    @property
    def is_confirmed(self) -> bool:
        """Whether the last check found no difference, nor has one to be expected."""
        return self._difference == 0

    def set(self, unread: int, grouped: int) -> None:
        """Take over the number that the client is sent at this moment."""
        self.counted = unread - grouped

    def mark(self, unread: int, grouped: int) -> None:
        """Take over the number that came with a read mark."""
        self.set(unread, grouped)
        if self._difference is not None:
            self._difference = 0

    def distrust(self) -> None:
        """Believe the next check at once."""
        self._difference = None

    def check(self, unread: int, grouped: int) -> bool:
        """
        Compare with the store's number, and take it over if it is believed.

        Returns whether it was, so that the client is to be sent it.
        """
        last, difference = self._difference, unread - self.counted - grouped
        is_corrected = difference != 0 and last in (None, difference)
        if is_corrected:
            self.set(unread, grouped)
        self._difference = 0 if is_corrected else difference
        return is_corrected

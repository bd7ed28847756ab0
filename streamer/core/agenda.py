"""
The agenda of a scheduler: when to look at which bucket of the timetable.

Decides which buckets are due, so that a scheduler at rest looks at none. Knows times as
numbers, and no more of a bucket than its number. Knows nothing of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["Agenda"]

_AT_ONCE = float("-inf")


class Agenda:
    """
    The time at which the first schedule of each bucket is due, as far as is known.

    A time that is too early costs a look in vain; a time that is too late would delay a
    schedule. So the earlier time wins where two meet: a notice that arrives while a
    bucket is looked at is kept beside the result.

    Args:
        buckets: The number of buckets.

    """

    def __init__(self, buckets: int) -> None:
        self._buckets = buckets
        self._first_ms: dict[int, float] = {}
        self._noted: dict[int, float] = {}
        """Notices since the look at their bucket began."""
        self.look_at_all()

    @property
    def next_ms(self) -> float:
        """When a bucket is due next; infinite if none is."""
        return min(self._first_ms.values(), default=float("inf"))

    def look_at_all(self) -> None:
        """Let every bucket be due at once."""
        self._first_ms = dict.fromkeys(range(self._buckets), _AT_ONCE)

    def look_at(self, bucket: int) -> None:
        """Let a bucket be due at once: notices of it may have been lost."""
        self.note(bucket, _AT_ONCE)

    def note(self, bucket: int, due_ms: float) -> None:
        """Take notice of a schedule that is due at `due_ms`."""
        for times in (self._first_ms, self._noted):
            times[bucket] = min(due_ms, times.get(bucket, due_ms))

    def begin_look(self, now_ms: float, also: Iterable[int] = ()) -> list[int]:
        """Return the buckets that are due, and `also`; they are looked at now."""
        due = {bucket for bucket, ms in self._first_ms.items() if ms <= now_ms}
        looked_at = sorted(due.union(also))
        for bucket in looked_at:
            self._noted.pop(bucket, None)
        return looked_at

    def end_look(self, first_ms: Mapping[int, float | None]) -> None:
        """
        Take the result of a look: for each bucket when its first schedule is due.

        Without the call, after a failure, the buckets stay due.
        """
        for bucket, found_ms in first_ms.items():
            noted_ms = self._noted.pop(bucket, None)
            times = [ms for ms in (found_ms, noted_ms) if ms is not None]
            if times:
                self._first_ms[bucket] = min(times)
            else:
                self._first_ms.pop(bucket, None)

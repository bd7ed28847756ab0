"""
The time and the content of a schedule, when it is created and when it is moved.

Decides that a time in the past means now, how far ahead a time may be, and that nothing
is sent after it has expired, also if it was paused. Knows schedules and drafts. Knows
nothing of callers, nor of the timetable.
"""

from __future__ import annotations

from ...core.schedule import AHEAD_MAX_MS, Schedule
from ...errors import FieldError, Invalid, TooLate
from ...model import Notification, iso_time
from ..publishing.drafts import draft_of, encode, with_expiry

__all__ = [
    "rescheduled_fragment",
    "resumed_fragment",
    "start_ms",
    "with_notification",
]


def start_ms(due_ms: int, now_ms: int) -> int:
    """
    Return when a schedule is due. A past time means now, and does not count as late.

    Raises:
        Invalid: The time is more than 30 days ahead.

    """
    if due_ms - now_ms > AHEAD_MAX_MS:
        problem = "must be at most 30 days ahead"
        raise Invalid(FieldError(("body", "send_at"), problem))
    return max(due_ms, now_ms)


def with_notification(
    schedule: Schedule, notification: Notification, *, ttl_ms: int = 0
) -> Schedule:
    """
    Return the schedule with the members that depend on its notification.

    Its fragment is that of the notification. With `ttl_ms` the notification expires
    that long after the schedule is due.

    Raises:
        Invalid: It cannot be encoded, or would expire before it is due.

    """
    fragment = schedule.fragment
    if ttl_ms:
        (notification,) = with_expiry([notification], [ttl_ms], schedule.due_ms)
        (fragment,) = encode([notification])
    draft = draft_of(0, notification, fragment)
    if 0 < draft.expires_ms <= schedule.due_ms:
        raise Invalid(FieldError(("body", "expires_at"), "must be after send_at"))
    return schedule._replace(
        fragment=fragment,
        type=draft.type,
        expires_ms=draft.expires_ms,
        ttl_ms=ttl_ms,
        collapse_key=draft.collapse_key,
        source=notification.source or "",
    )


def rescheduled_fragment(schedule: Schedule, due_ms: int) -> tuple[bytes, int]:
    """
    Return the fragment of a schedule at another time, and when it expires, in ms.

    The fragment is empty if it does not change. Raises Invalid if the notification
    would expire before `due_ms`.
    """
    if not schedule.ttl_ms:
        if 0 < schedule.expires_ms <= due_ms:
            raise Invalid(
                FieldError(
                    ("body", "send_at"), "must be before the notification expires"
                )
            )
        return b"", 0
    return _expiring(schedule, due_ms + schedule.ttl_ms)


def resumed_fragment(schedule: Schedule, now_ms: int) -> tuple[bytes, int]:
    """
    Return the fragment of a schedule that is resumed now, as `rescheduled_fragment`.

    If its time has passed, it is sent now, and its `ttl_ms` counts from now.

    Raises:
        TooLate: The notification has expired.

    """
    if schedule.ttl_ms and not schedule.begun_ms and schedule.due_ms < now_ms:
        return _expiring(schedule, now_ms + schedule.ttl_ms)
    if 0 < schedule.expires_ms <= now_ms:
        raise TooLate("expired", "cancel it and schedule another")
    return b"", 0


def _expiring(schedule: Schedule, expires_ms: int) -> tuple[bytes, int]:
    # Replaced in place: decoding and encoding would change how numbers in `data` are
    # written. Only `data` may contain the same text, and it comes before.
    before, _, after = schedule.fragment.rpartition(_expires_at(schedule.expires_ms))
    return before + _expires_at(expires_ms) + after, expires_ms


def _expires_at(at_ms: int) -> bytes:
    return b'"expires_at":"%b"' % iso_time(at_ms).encode()

"""
What is entered for a send: when it starts, what it says, and both at another time.

Decides that a time in the past means now, how far ahead one may lie, and that nothing
is sent after it has expired. Knows schedules, and drafts of what they say. Knows
nothing of who asks, nor of the timetable.
"""

from __future__ import annotations

from ...core.schedule import AHEAD_MAX_MS, Schedule
from ...errors import FieldError, Invalid
from ...model import Notification, iso_time
from ..publishing.drafts import draft_of, encode, with_expiry

__all__ = ["rescheduled_fragment", "start_ms", "with_notification"]


def start_ms(due_ms: int, now_ms: int) -> int:
    """
    Return the time to enter: one that is past means now, and is not late.

    Raises:
        Invalid: It is more than 30 days ahead.

    """
    if due_ms - now_ms > AHEAD_MAX_MS:
        problem = "must be at most 30 days ahead"
        raise Invalid(FieldError(("body", "send_at"), problem))
    return max(due_ms, now_ms)


def with_notification(
    schedule: Schedule, notification: Notification, *, ttl_ms: int = 0
) -> Schedule:
    """
    Return the schedule, whose fragment is the notification's, as one that sends it.

    With `ttl_ms` it expires so long after its time, and says so.

    Raises:
        Invalid: It cannot be stored, or would expire before its time.

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
    Return what a schedule says at another time, and when that expires.

    The first is empty where it stays as it is. Raises Invalid if it would have expired.
    """
    if not schedule.ttl_ms:
        if 0 < schedule.expires_ms <= due_ms:
            raise Invalid(
                FieldError(
                    ("body", "send_at"), "must be before the notification expires"
                )
            )
        return b"", 0
    # In place rather than decoded and encoded anew, which would change how numbers of
    # `data` are written. Only `data` may say the same, and it stands in front.
    before, _, after = schedule.fragment.rpartition(_expires_at(schedule.expires_ms))
    expires_ms = due_ms + schedule.ttl_ms
    return before + _expires_at(expires_ms) + after, expires_ms


def _expires_at(at_ms: int) -> bytes:
    return b'"expires_at":"%b"' % iso_time(at_ms).encode()

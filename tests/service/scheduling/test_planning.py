"""The time and the content of a schedule, when created and when moved."""

from __future__ import annotations

import pytest

from streamer.core.schedule import AHEAD_MAX_MS, Schedule, ScheduleState
from streamer.errors import Invalid, TooLate
from streamer.model import App, Notification, decode_fragment, iso_time
from streamer.service.publishing.drafts import encode
from streamer.service.scheduling.planning import (
    rescheduled_fragment,
    resumed_fragment,
    start_ms,
    with_notification,
)

NOON = 1_800_000_000_000


def scheduled(notification: Notification, ttl_ms: int = 0) -> Schedule:
    (fragment,) = encode([notification])
    schedule = Schedule(App("app"), "id", ScheduleState.PENDING, NOON, 0, fragment)
    return with_notification(schedule, notification, ttl_ms=ttl_ms)


def test_a_time_in_the_past_means_now() -> None:
    assert start_ms(0, NOON) == NOON
    assert start_ms(NOON + AHEAD_MAX_MS, NOON) == NOON + AHEAD_MAX_MS


def test_a_time_beyond_thirty_days_is_refused() -> None:
    with pytest.raises(Invalid):
        start_ms(NOON + AHEAD_MAX_MS + 1, NOON)


def test_a_schedule_has_the_members_of_its_notification() -> None:
    message = Notification(body="b", type="t", collapse_key="c", source="s")

    schedule = scheduled(message)

    assert decode_fragment(schedule.fragment) == message
    assert (schedule.type, schedule.collapse_key, schedule.source) == ("t", "c", "s")
    assert (schedule.expires_ms, schedule.ttl_ms) == (0, 0)


def test_a_ttl_starts_when_the_schedule_is_due() -> None:
    schedule = scheduled(Notification(body="b"), ttl_ms=10)

    assert schedule.expires_ms == NOON + 10
    assert decode_fragment(schedule.fragment).expires_at == iso_time(NOON + 10)


def test_nothing_is_sent_when_it_has_expired() -> None:
    message = Notification(body="b", expires_at=iso_time(NOON + 1))

    schedule = scheduled(message)
    with pytest.raises(Invalid):
        scheduled(Notification(body="b", expires_at=iso_time(NOON)))
    with pytest.raises(Invalid):
        rescheduled_fragment(schedule, NOON + 1)

    assert rescheduled_fragment(schedule, NOON) == (b"", 0)


def test_moving_a_schedule_changes_only_its_expiry() -> None:
    data = {"expires_at": iso_time(NOON + 10), "odds": 1e-07}
    schedule = scheduled(Notification(body="b", data=data), ttl_ms=10)

    fragment, expires_ms = rescheduled_fragment(schedule, NOON + 5)

    assert expires_ms == NOON + 15
    before, after = iso_time(NOON + 10).encode(), iso_time(NOON + 15).encode()
    assert fragment.count(before) == 1
    assert fragment.replace(after, before) == schedule.fragment
    assert decode_fragment(fragment).data == data


def test_a_lifetime_counts_from_the_resumption_of_an_overdue_schedule() -> None:
    schedule = scheduled(Notification(body="b"), ttl_ms=10)

    fragment, expires_ms = resumed_fragment(schedule, NOON + 60)

    assert expires_ms == NOON + 70
    assert decode_fragment(fragment).expires_at == iso_time(NOON + 70)
    assert resumed_fragment(schedule, NOON - 1) == (b"", 0)


def test_what_has_expired_is_not_resumed() -> None:
    fixed = scheduled(Notification(body="b", expires_at=iso_time(NOON + 10)))
    begun = scheduled(Notification(body="b"), ttl_ms=10)._replace(begun_ms=NOON)

    for schedule in (fixed, begun):
        assert resumed_fragment(schedule, NOON + 9) == (b"", 0)
        with pytest.raises(TooLate, match=r"already expired; cancel it"):
            resumed_fragment(schedule, NOON + 10)

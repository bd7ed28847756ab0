from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from streamer.core.schedule import (
    LATE_AFTER_MS,
    Schedule,
    ScheduleState,
    bucket_starts_ms,
    clocks_agree,
    parse_time,
    round_robin,
    to_ms,
)
from streamer.model import App, Player

SEED_PAGE = 1_535_043_600_000  # 2018-08-23 17:00:00, from Teak's documentation


def schedule(**fields: Any) -> Schedule:
    made = Schedule(App("demo"), "id", ScheduleState.PENDING, 1_000, 0, b'"body":"b"}')
    return made._replace(**fields)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2018-08-23 17:00:00", SEED_PAGE),
        ("2018-08-23T17:00:00", SEED_PAGE),
        ("2018-08-23t17:00:00z", SEED_PAGE),
        ("2018-08-23 17:00", SEED_PAGE),
        ("2018-08-23T17:00:00Z", SEED_PAGE),
        ("2018-08-23 17:00:00 UTC", SEED_PAGE),
        ("2018-08-23 17:00:00.25", SEED_PAGE + 250),
        ("2018-08-23 17:00:00,25Z", SEED_PAGE + 250),
        ("2018-08-23T17:00:00.999999999Z", SEED_PAGE + 999),
        ("2018-08-23T19:00:00+02:00", SEED_PAGE),
        ("2018-08-23T19:00:00 +0200", SEED_PAGE),
        ("2018-08-23T19:00:00+02", SEED_PAGE),
        ("2018-08-23T12:30:00-04:30", SEED_PAGE),
        # An hour that clocks in Berlin skip; it exists in UTC.
        ("2026-03-29 02:30:00", 1_774_751_400_000),
        ("2026-03-29T02:30:00+01:00", 1_774_747_800_000),
        # An hour that they have twice; the offset decides.
        ("2026-10-25T02:30:00+02:00", 1_792_888_200_000),
        ("2026-10-25T02:30:00+01:00", 1_792_891_800_000),
        ("2028-02-29 00:00:00", 1_835_395_200_000),
        ("1969-12-31 23:59:59", -1_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        # After the last year and before the first, in UTC.
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_a_time_in_any_accepted_format_is_parsed(text: str, at_ms: int) -> None:
    assert parse_time(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2018-08-23",
        "17:00:00",
        "2018-08-23  17:00:00",
        "2018-08-23_17:00:00",
        "2018-8-23 17:00:00",
        "2018-08-23 7:00:00",
        "2018-08-23 24:00:00",
        "2018-08-23 17:60:00",
        "2018-08-23 17:00:60",
        "2016-12-31T23:59:60Z",
        "2018-08-23 17:00.5",
        "2018-08-23 17:00:00.",
        "2018-08-23T17:00:00+24:00",
        "2018-08-23T17:00:00-14:60",
        "2018-08-23T17:00:00+05:99",
        "2018-08-23T17:00:00 CET",
        "2018-08-23T17:00:00Z ",
        "2018-08-23T17:00:00Z\n",
        "2018-13-01 00:00:00",
        "2018-00-01 00:00:00",
        "2026-02-29 00:00:00",
        "2100-02-29 00:00:00",
        "0000-01-01 00:00:00",
        "10000-01-01 00:00:00",
        "-2018-01-01 00:00:00",
        "-1",
        "1535043600",
        "1e308",
        "NaN",
        "2018-W34-4T17:00:00",
        "20180823T170000Z",
        "٢٠١٨-08-23 17:00:00",
        "2018-08-23 17:00:00" + "0" * 10_000,
    ],
)
def test_other_texts_are_not_times(text: str) -> None:
    assert parse_time(text) is None


def test_a_time_is_rounded_down_to_a_millisecond_before_the_epoch_too() -> None:
    zone = timezone(timedelta(hours=1))

    assert to_ms(datetime(1970, 1, 1, 1, tzinfo=zone)) == 0
    assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_500, UTC)) == -1


@pytest.mark.parametrize(("apart_ms", "agree"), [(30_000, True), (30_001, False)])
def test_clocks_that_differ_by_more_than_30_s_disagree(
    apart_ms: int, agree: bool
) -> None:
    assert clocks_agree(1_000_000, 1_000_000 + apart_ms) is agree
    assert clocks_agree(1_000_000 + apart_ms, 1_000_000) is agree


def test_the_buckets_of_a_spread_audience_start_evenly() -> None:
    spread = schedule(buckets=(4, 7, 9, 11), spread_ms=1_000, begun_ms=5_000)

    assert [bucket_starts_ms(spread, i) for i in range(4)] == [
        5_000,
        5_250,
        5_500,
        5_750,
    ]


def test_without_a_spread_all_buckets_start_at_once() -> None:
    assert bucket_starts_ms(schedule(buckets=(1, 2), begun_ms=5_000), 1) == 5_000


@pytest.mark.parametrize("late_ms", [0, LATE_AFTER_MS, LATE_AFTER_MS + 1])
def test_a_send_well_after_its_time_is_late(late_ms: int) -> None:
    sent = schedule(
        state=ScheduleState.SENT, player=Player("p"), settled_ms=1_000 + late_ms
    )
    sending = schedule(state=ScheduleState.SENDING, begun_ms=1_000 + late_ms)

    assert sent.is_late is sending.is_late is (late_ms > LATE_AFTER_MS)


def test_a_cancelled_schedule_is_not_late() -> None:
    cancelled = schedule(state=ScheduleState.CANCELLED, settled_ms=10**9)

    assert not cancelled.is_late


def test_apps_take_turns_and_keep_their_own_order() -> None:
    waiting = [(App("a"), n) for n in range(4)] + [(App("b"), 0), (App("b"), 1)]

    turns = round_robin(waiting, lambda item: item[0])

    assert turns == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)]

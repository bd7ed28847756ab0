"""When a stream reconnects: its decisions, without a connection."""

from __future__ import annotations

import pytest

from streamer_client.backoff import (
    DELAY_MAX_S,
    STABLE_S,
    Ending,
    NewToken,
    Reconnect,
    Stop,
    Wait,
    ending_of_status,
    full_jitter_s,
    parse_retry_after,
)
from streamer_client.errors import Refused, TokenExpired, Unavailable

LOST = Ending(None, "lost")
EXPIRED = Ending(4200, "token invalid or expired")


def never_open(*, has_token_source: bool = False, fraction: float = 1.0) -> Reconnect:
    """Decisions of a stream without a connection; the jitter is always `fraction`."""
    return Reconnect(
        has_token_source=has_token_source, random=lambda: fraction, url="ws://s/v1"
    )


def reconnect(*, has_token_source: bool = False, fraction: float = 1.0) -> Reconnect:
    """Decisions of a stream that has been connected."""
    decisions = never_open(has_token_source=has_token_source, fraction=fraction)
    decisions.mark_open(0.0)
    return decisions


def delay_after(decisions: Reconnect, ending: Ending, now_s: float = 0.0) -> float:
    decision = decisions.after(ending, now_s)
    assert isinstance(decision, Wait)
    return decision.delay_s


def test_the_backoff_limit_doubles_up_to_20_s() -> None:
    decisions = reconnect()

    delays = [delay_after(decisions, LOST) for _ in range(8)]

    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]


def test_the_wait_is_random_below_its_limit() -> None:
    assert full_jitter_s(3, 0.0) == 0.0
    assert full_jitter_s(3, 0.5) == 2.0


def test_an_outage_of_weeks_overflows_nothing() -> None:
    assert full_jitter_s(1_000_000, 1.0) == 20.0


@pytest.mark.parametrize(
    "code", [None, 1000, 1001, 1006, 1009, 1011, 1012, 3000, 4000, 4099, 4300, 4999]
)
def test_every_code_outside_the_two_special_ranges_reconnects(code: int | None) -> None:
    assert delay_after(reconnect(), Ending(code, "")) == 0.5


@pytest.mark.parametrize("code", [4100, 4104, 4199])
def test_the_servers_delay_is_kept_with_jitter_added(code: int) -> None:
    assert delay_after(reconnect(), Ending(code, "", 3.0)) == 3.5
    assert delay_after(reconnect(fraction=0.0), Ending(code, "", 3.0)) == 3.0


def test_the_jitter_grows_while_the_servers_delay_does_not_help() -> None:
    decisions = reconnect()

    delays = [delay_after(decisions, Ending(4101, "", 1.0)) for _ in range(4)]

    assert delays == [1.5, 2.0, 3.0, 5.0]


def test_without_a_delay_there_is_backoff() -> None:
    assert delay_after(reconnect(), Ending(4100, "draining")) == 0.5


def test_an_absurd_delay_is_limited() -> None:
    assert delay_after(reconnect(fraction=0.0), Ending(4100, "", 1e9)) == DELAY_MAX_S
    assert delay_after(reconnect(fraction=0.0), Ending(4100, "", -5.0)) == 0.0


def test_a_first_connection_has_six_attempts() -> None:
    decisions = never_open()
    full = Ending(4102, "503 node full", 1.0, 503, "all slots are taken")

    delays = [delay_after(decisions, full) for _ in range(5)]
    decision = decisions.after(full, 0.0)

    assert delays == [1.5, 2.0, 3.0, 5.0, 9.0]
    assert isinstance(decision, Stop)
    assert isinstance(decision.error, Unavailable)
    assert (decision.error.status, decision.error.detail) == (
        503,
        "all slots are taken",
    )
    assert str(decision.error) == "503 node full (after 6 attempts) (ws://s/v1)"


def test_a_first_connection_is_not_attempted_after_a_minute() -> None:
    decisions = never_open(fraction=0.0)

    assert delay_after(decisions, Ending(4102, "", 60.0), now_s=5.0) == 60.0
    assert isinstance(decisions.after(Ending(None, "lost"), 65.1), Stop)


def test_a_stream_that_was_connected_has_no_maximum_of_attempts() -> None:
    decisions = never_open()
    decisions.mark_open(0.0)

    for attempt in range(100):
        assert isinstance(decisions.after(LOST, attempt * 3600.0), Wait)


@pytest.mark.parametrize("code", [4201, 4202, 4203, 4250, 4299])
def test_the_last_range_does_not_reconnect(code: int) -> None:
    decision = reconnect(has_token_source=True).after(Ending(code, "why"), 0.0)

    assert isinstance(decision, Stop)
    assert type(decision.error) is Refused
    assert (decision.error.code, decision.error.reason) == (code, "why")


def test_a_refused_token_without_a_source_ends_the_stream() -> None:
    decision = reconnect().after(EXPIRED, 0.0)

    assert isinstance(decision, Stop)
    assert isinstance(decision.error, TokenExpired)


def test_a_refused_token_is_replaced_once() -> None:
    decisions = reconnect(has_token_source=True)

    assert decisions.after(EXPIRED, 0.0) == NewToken()
    assert isinstance(decisions.after(EXPIRED, 0.0), Stop)


def test_a_token_that_worked_may_be_replaced_again() -> None:
    decisions = reconnect(has_token_source=True)

    for hour in range(3):
        decisions.mark_open(hour * 3600.0)
        assert decisions.after(EXPIRED, hour * 3600.0 + 3599) == NewToken()


def test_hello_alone_does_not_prove_a_token() -> None:
    decisions = reconnect(has_token_source=True)
    decisions.after(EXPIRED, 0.0)

    decisions.mark_open(1.0)

    assert isinstance(decisions.after(EXPIRED, 1.0), Stop)


def test_a_token_that_expired_in_an_outage_is_replaced() -> None:
    decisions = reconnect(has_token_source=True)
    decisions.after(EXPIRED, 0.0)
    decisions.after(LOST, 1.0)

    assert decisions.after(EXPIRED, 7200.0) == NewToken()


def test_hello_alone_does_not_reset_the_backoff() -> None:
    decisions = reconnect()
    delay_after(decisions, LOST)

    decisions.mark_open(0.0)

    assert delay_after(decisions, LOST, STABLE_S - 0.1) == 1.0


def test_a_connection_that_lasted_resets_the_backoff() -> None:
    decisions = reconnect()
    for _ in range(5):
        delay_after(decisions, LOST)

    decisions.mark_open(100.0)

    assert delay_after(decisions, LOST, 100.0 + STABLE_S) == 0.5


def test_a_new_notification_resets_the_backoff() -> None:
    decisions = reconnect()
    for _ in range(5):
        delay_after(decisions, LOST)

    decisions.mark_open(100.0)
    decisions.mark_proved()

    assert delay_after(decisions, LOST, 100.1) == 0.5


def test_a_failed_attempt_has_no_time_of_the_last_connection() -> None:
    decisions = reconnect()
    decisions.mark_open(0.0)
    delay_after(decisions, LOST, 1.0)

    assert delay_after(decisions, LOST, 100.0) == 1.0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, 4200),
        (403, 4201),
        (409, 4101),
        (429, 4102),
        (500, 4102),
        (503, 4102),
        (400, 4203),
        (404, 4203),
        (422, 4203),
    ],
)
def test_a_refused_handshake_has_the_close_code_with_the_same_meaning(
    status: int, code: int
) -> None:
    ending = ending_of_status(status, "why", 2.0, "because")

    assert ending == Ending(code, "why", 2.0, status, "because")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("9" * 5000, DELAY_MAX_S),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2970 00:00:00 GMT", DELAY_MAX_S),
    ],
)
def test_retry_after_is_read_in_both_forms(
    value: str | None, expected: float | None
) -> None:
    assert parse_retry_after(value, now_s=40.0) == expected

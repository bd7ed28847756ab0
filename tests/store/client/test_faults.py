"""What fails of the store: logged once, repeated seldom, and told when it is over."""

from __future__ import annotations

import logging

import pytest
from redis.exceptions import ResponseError

from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.store.client import faults as faults_module
from streamer.store.client.faults import STORE_FAILURES, StoreFaults


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def now() -> Seconds:
    return Seconds()


@pytest.fixture
def faults(now: Seconds) -> StoreFaults:
    return StoreFaults("db:6379", clock_s=now)


def advance(now: Seconds, seconds: float) -> None:
    now.now_s += seconds


def test_a_fault_is_logged_once_a_minute_while_it_lasts(
    faults: StoreFaults, now: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(590):
        faults.unavailable("Connection refused")
        advance(now, 0.1)

    line = "the store at db:6379 is unavailable: Connection refused"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert caplog.records[0].levelno == logging.ERROR
    for _ in range(20):
        faults.unavailable("Connection refused")
        advance(now, 0.1)
    assert [record.getMessage() for record in caplog.records] == [line] * 2


def test_the_end_of_a_fault_is_logged_once_the_store_serves_steadily(
    faults: StoreFaults, now: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    faults.unavailable("Connection refused")
    advance(now, 12)
    faults.unavailable("Connection refused")
    faults.passed()
    faults.tell_recovery()
    assert len(caplog.records) == 1

    advance(now, faults_module.CLEAR_S)
    faults.tell_recovery()
    faults.tell_recovery()

    assert [record.getMessage() for record in caplog.records[1:]] == [
        "the store at db:6379 serves again, after 12 s"
    ]
    faults.unavailable("Connection refused")
    assert len(caplog.records) == 3


def test_a_fault_that_comes_and_goes_is_one_fault(
    faults: StoreFaults, now: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(30):
        faults.failed("scheduler", "refused a command of the scheduler: WRONGTYPE")
        advance(now, 0.5)
        faults.passed("scheduler")
        faults.tell_recovery()
        advance(now, 0.5)

    assert len(caplog.records) == 1


def test_another_reason_is_logged_when_the_last_line_is_ten_seconds_old(
    faults: StoreFaults, now: Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    faults.unavailable("Connection refused")
    advance(now, 1)
    faults.unavailable("LOADING")
    assert len(caplog.records) == 1

    advance(now, faults_module.CHANGE_S)
    faults.unavailable("NOAUTH")

    assert "NOAUTH" in caplog.records[1].getMessage()


def test_the_reason_has_no_address_and_is_the_first_that_lasts(
    faults: StoreFaults,
) -> None:
    assert faults.reason is None

    faults.unavailable("Connection refused")
    faults.failed("scheduler", "refused a command of the scheduler: WRONGTYPE")
    assert faults.reason == "the store is unavailable: Connection refused"

    faults.passed()
    assert faults.reason == "the store refused a command of the scheduler: WRONGTYPE"
    faults.passed("scheduler")
    assert faults.reason is None


def test_a_part_reports_only_what_the_connection_does_not(faults: StoreFaults) -> None:
    for error in (StoreUnavailable("LOADING"), OutcomeUnknown()):
        assert isinstance(error, STORE_FAILURES)
        faults.refused("scheduler", error)
        assert faults.reason is None

    faults.refused("scheduler", ResponseError("WRONGTYPE Operation"))

    assert "WRONGTYPE" in (faults.reason or "")


async def test_attempts_survive_what_the_store_refuses_and_report_it(
    faults: StoreFaults,
) -> None:
    attempts = faults.attempts("sweep")

    async with attempts:
        raise ResponseError("NOPERM")

    assert attempts.failing
    assert faults.reason == "the store refused a command of the sweep: NOPERM"
    async with attempts:
        pass
    assert not attempts.failing
    assert faults.reason is None


async def test_attempts_end_with_an_error_that_is_not_the_stores(
    faults: StoreFaults,
) -> None:
    attempts = faults.attempts("sweep")

    with pytest.raises(KeyError):
        async with attempts:
            raise KeyError

    assert faults.reason is None


async def test_attempts_wait_longer_after_each_failure_in_turn(
    faults: StoreFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("streamer.store.client.faults.asyncio.sleep", sleep)
    attempts = faults.attempts("sweep", wait_s=(1, 3))
    for _ in range(3):
        async with attempts:
            raise StoreUnavailable
    async with attempts:
        pass
    async with attempts:
        raise StoreUnavailable

    longest = [1, 2, 3, 1]
    assert [wait <= most for wait, most in zip(waits, longest, strict=True)] == [1] * 4
    assert [wait >= most / 2 for wait, most in zip(waits, longest, strict=True)] == (
        [1] * 4
    )

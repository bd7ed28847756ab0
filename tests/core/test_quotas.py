"""Borrowed permits, and when borrowing is pointless."""

from __future__ import annotations

import msgspec
import pytest

from streamer.core.quotas import (
    BUCKET_STATE_TTL_S,
    Permits,
    QuotaLimits,
    QuotaOverrides,
)


def test_an_apps_quotas_override_the_settings() -> None:
    own = QuotaOverrides(publishes_per_s=5, players=0)

    limits = own.with_defaults(
        QuotaLimits(publishes_per_s=9, bytes_per_day=8, players=7)
    )

    assert limits == QuotaLimits(publishes_per_s=5, bytes_per_day=8, players=0)


def test_a_negative_quota_is_invalid() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"players":-1}', type=QuotaOverrides)


def test_only_borrowed_permits_are_spent() -> None:
    permits = Permits(10, 10, portion=3)
    assert not permits.spend(1)

    permits.add_borrowed(3, 7, now_s=0)

    assert permits.spend(1)
    assert permits.spend(2)
    assert not permits.spend(1)


def test_missing_permits_or_a_portion_are_borrowed() -> None:
    permits = Permits(10, 10, portion=3)
    permits.add_borrowed(2, 8, now_s=0)

    assert permits.borrow_range(3) == (1, 3)
    assert permits.borrow_range(9) == (7, 7)


def test_refunded_permits_are_spent_again() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(4, 6, now_s=0)
    assert permits.spend(4)

    permits.refund(4)

    assert permits.spend(4)


def test_a_balance_is_limited_to_one_burst() -> None:
    permits = Permits(10, 10)

    permits.refund(1_000)

    assert permits.spend(10)
    assert not permits.spend(1)


def test_an_unknown_bucket_has_no_wait() -> None:
    assert Permits(10, 10).wait_s(1_000, now_s=0) == 0


def test_a_wait_lasts_until_the_bucket_may_cover_it() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(0, 2.5, now_s=100)

    assert permits.wait_s(3, now_s=100) == pytest.approx(0.05)
    assert permits.wait_s(2, now_s=100) == 0
    assert permits.wait_s(3, now_s=100.06) == 0


def test_more_than_one_burst_waits_for_a_full_bucket() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(0, 9.5, now_s=100)

    assert permits.wait_s(500, now_s=100) == pytest.approx(0.05)


def test_the_state_of_a_bucket_expires() -> None:
    permits = Permits(1, 10)
    permits.add_borrowed(0, -1_000, now_s=100)

    assert permits.wait_s(1, now_s=100 + BUCKET_STATE_TTL_S / 2) > 0
    assert permits.wait_s(1, now_s=100 + BUCKET_STATE_TTL_S) == 0

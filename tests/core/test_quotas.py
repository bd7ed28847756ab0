"""What a node spends of what it has borrowed, and when it need not ask."""

from __future__ import annotations

import msgspec
import pytest

from streamer.core.quotas import (
    BUCKET_STATE_TTL_S,
    Permits,
    QuotaLimits,
    QuotaOverrides,
)


def test_an_apps_own_quotas_go_before_the_settings() -> None:
    own = QuotaOverrides(publishes_per_s=5, players=0)

    limits = own.with_defaults(
        QuotaLimits(publishes_per_s=9, bytes_per_day=8, players=7)
    )

    assert limits == QuotaLimits(publishes_per_s=5, bytes_per_day=8, players=0)


def test_a_quota_below_zero_is_not_read() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"players":-1}', type=QuotaOverrides)


def test_what_was_borrowed_is_spent_and_no_more() -> None:
    permits = Permits(10, 10, portion=3)
    assert not permits.spend(1)

    permits.add_borrowed(3, 7, now_s=0)

    assert permits.spend(1)
    assert permits.spend(2)
    assert not permits.spend(1)


def test_who_lacks_some_borrows_the_rest_or_a_portion() -> None:
    permits = Permits(10, 10, portion=3)
    permits.add_borrowed(2, 8, now_s=0)

    assert permits.borrow_range(3) == (1, 3)
    assert permits.borrow_range(9) == (7, 7)


def test_what_was_paid_for_nothing_is_spent_again() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(4, 6, now_s=0)
    assert permits.spend(4)

    permits.refund(4)

    assert permits.spend(4)


def test_a_pocket_holds_a_bucketful_at_most() -> None:
    permits = Permits(10, 10)

    permits.refund(1_000)

    assert permits.spend(10)
    assert not permits.spend(1)


def test_of_an_unknown_bucket_it_is_worth_asking() -> None:
    assert Permits(10, 10).wait_s(1_000, now_s=0) == 0


def test_asking_is_in_vain_until_enough_can_have_come_in() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(0, 2.5, now_s=100)

    assert permits.wait_s(3, now_s=100) == pytest.approx(0.05)
    assert permits.wait_s(2, now_s=100) == 0
    assert permits.wait_s(3, now_s=100.06) == 0


def test_more_than_a_bucketful_waits_for_a_full_bucket() -> None:
    permits = Permits(10, 10)
    permits.add_borrowed(0, 9.5, now_s=100)

    assert permits.wait_s(500, now_s=100) == pytest.approx(0.05)


def test_what_the_store_said_is_believed_for_a_while() -> None:
    permits = Permits(1, 10)
    permits.add_borrowed(0, -1_000, now_s=100)

    assert permits.wait_s(1, now_s=100 + BUCKET_STATE_TTL_S / 2) > 0
    assert permits.wait_s(1, now_s=100 + BUCKET_STATE_TTL_S) == 0

"""The number of unread notifications: when it is corrected, and when it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.core.streams.unread_count import UnreadCount

numbers = st.integers(0, 5)


def test_a_new_count_is_zero_and_confirmed() -> None:
    count = UnreadCount()

    assert count.counted == 0
    assert count.is_confirmed


def test_an_equal_number_corrects_nothing() -> None:
    count = UnreadCount(3)

    assert not count.check(3, 0)
    assert count.is_confirmed


def test_a_difference_is_corrected_when_it_is_seen_twice() -> None:
    count = UnreadCount(3)

    assert not count.check(5, 0)
    assert not count.is_confirmed
    assert count.check(5, 0)

    assert count.counted == 5
    assert count.is_confirmed


def test_another_difference_is_not_the_same_one() -> None:
    count = UnreadCount(3)

    assert not count.check(5, 0)
    assert not count.check(6, 0)
    assert not count.check(3, 0)
    assert not count.check(6, 0)

    assert count.counted == 3


def test_a_difference_stays_the_same_while_both_numbers_grow() -> None:
    count = UnreadCount(3)
    assert not count.check(2, 0)

    count.counted += 1

    assert count.check(3, 0)
    assert count.counted == 3


def test_a_distrusted_count_is_corrected_at_once() -> None:
    count = UnreadCount(3)

    count.distrust()
    assert not count.is_confirmed

    assert count.check(2, 0)
    assert count.counted == 2
    assert count.is_confirmed


def test_a_check_that_confirms_a_distrusted_count_ends_the_distrust() -> None:
    count = UnreadCount(3)
    count.distrust()

    assert not count.check(3, 0)

    assert count.is_confirmed
    assert not count.check(2, 0)


def test_a_mark_brings_a_number_and_forgets_the_difference() -> None:
    count = UnreadCount(3)
    assert not count.check(5, 0)

    count.mark(1, 0)

    assert count.counted == 1
    assert count.is_confirmed
    assert not count.check(3, 0)


def test_a_mark_does_not_end_the_distrust() -> None:
    # The reason for the distrust may be later than the count of the mark.
    count = UnreadCount(3)
    count.distrust()

    count.mark(1, 0)

    assert not count.is_confirmed
    assert count.check(0, 0)


@given(numbers, numbers, numbers)
def test_what_a_group_has_counted_is_not_counted_twice(
    counted: int, grouped: int, unread: int
) -> None:
    count = UnreadCount(counted)
    count.distrust()

    corrected = count.check(unread, grouped)

    assert corrected == (counted + grouped != unread)
    assert count.counted + grouped == unread
